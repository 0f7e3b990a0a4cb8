// Saving a panel as a picture that needs no page round it: title, legend, captions, the run and the step are in it.

const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "font-family", "font-size", "font-weight", "opacity"];
const LONGEST_FILE_NAME = 80;
const PIXELS = 3;

// A drawing that looks the same without the page's style, at its place.
function standalone(drawing, place) {
  const copy = drawing.cloneNode(true);
  const [from, to] = [drawing, copy].map((one) => [one, ...one.querySelectorAll("*")]);
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of KEPT) to[i].setAttribute(name, style.getPropertyValue(name));
    to[i].removeAttribute("class");
  });
  for (const [name, value] of Object.entries(place)) copy.setAttribute(name, value);
  return copy;
}

// The lines in which a text stands on the page, each with its rectangle.
function linesOf(text) {
  const range = document.createRange();
  const lines = [];
  let at = 0;
  for (const sign of text.data) {
    range.setStart(text, at);
    range.setEnd(text, (at += sign.length));
    const box = range.getClientRects()[0];
    if (!box || !box.width) continue;
    const line = lines[lines.length - 1];
    if (line && Math.abs(line.box.top - box.top) < box.height / 2) line.words += sign;
    else lines.push({ words: sign, box });
  }
  return lines.filter((line) => line.words.trim());
}

// Everything that can be seen of a panel, as one drawing.
function drawn(panel, background) {
  const frame = panel.getBoundingClientRect();
  const place = (box) => ({ x: box.left - frame.left, y: box.top - frame.top, width: box.width, height: box.height });
  const whole = svg("svg", { xmlns: SVG, width: frame.width, height: frame.height, viewBox: `0 0 ${frame.width} ${frame.height}` });
  whole.append(svg("rect", { width: "100%", height: "100%", fill: background }));
  for (const canvas of panel.querySelectorAll("canvas")) whole.append(svg("image", { href: canvas.toDataURL(), ...place(canvas.getBoundingClientRect()) }));
  for (const one of panel.querySelectorAll("svg")) whole.append(standalone(one, place(one.getBoundingClientRect())));
  const texts = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT, (text) => (text.parentElement.closest("svg") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
  while (texts.nextNode()) {
    const style = getComputedStyle(texts.currentNode.parentElement);
    const font = Object.fromEntries(["font-family", "font-size", "font-weight"].map((name) => [name, style.getPropertyValue(name)]));
    for (const { words, box } of linesOf(texts.currentNode)) {
      const { x, y, height } = place(box);
      // Of the height of a line some four fifths lie above its base, in whatever font.
      whole.append(svg("text", { x, y: y + 0.8 * height, fill: style.color, ...font }, words.trim()));
    }
  }
  return whole;
}

function download(blob, name) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function inPixels(blob, { width, height }) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  URL.revokeObjectURL(image.src);
  const canvas = html("canvas", { width: Math.ceil(PIXELS * width), height: Math.ceil(PIXELS * height) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// As SVG; a panel of canvases as PNG.
async function savePanel(panel, page) {
  const chosen = [...panel.querySelectorAll(".tools select:not([id$='-scale'], #labels)")].map((one) => one.selectedOptions[0].textContent);
  const title = panel.querySelector("h2").textContent;
  const about = [...chosen.filter((one) => !title.includes(one)), page.name, `step ${inSteps(page.step)}`, document.getElementById("aligned")?.textContent];
  const source = panel.appendChild(html("p", { class: "key" }, about.filter(Boolean).join(" · ")));
  const hasCanvas = panel.querySelector("canvas") !== null;
  panel.classList.add("saving");
  page.sharp = hasCanvas;
  if (hasCanvas) page.redraw();
  const size = panel.getBoundingClientRect();
  const blob = new Blob([new XMLSerializer().serializeToString(drawn(panel, page.colour("--surface")))], { type: "image/svg+xml" });
  panel.classList.remove("saving");
  source.remove();
  page.sharp = false;
  if (hasCanvas) page.redraw();
  const name = `${page.name.replace(/[^\w.-]+/g, "_").slice(0, LONGEST_FILE_NAME)}-${panel.id}-step-${page.step}`;
  download(hasCanvas ? await inPixels(blob, size) : blob, `${name}.${hasCanvas ? "png" : "svg"}`);
}

function bindSaving(page) {
  for (const button of document.querySelectorAll("button.save")) button.addEventListener("click", () => savePanel(button.closest(".panel"), page));
}
