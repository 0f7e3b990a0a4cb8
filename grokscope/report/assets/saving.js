// Save a panel as a self-contained picture: with its title, legend and captions, the run and the step.

import { SVG_NAMESPACE, html, svg } from "./elements.js";
import { formatInteger } from "./numbers.js";

const STYLE_PROPERTIES = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap",
  "stroke-linejoin", "font-family", "font-size", "font-weight", "opacity",
];
const LONGEST_FILE_NAME = 80;
const PIXEL_RATIO = 3;
// The share of a line's height above its baseline, about the same in every font.
const BASELINE_SHARE = 0.8;

// Return a copy of an SVG element that looks the same without the page's style, at the given position.
function inlineStyles(element, position) {
  const copy = element.cloneNode(true);
  const [sources, targets] = [element, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  sources.forEach((source, i) => {
    const style = getComputedStyle(source);
    for (const name of STYLE_PROPERTIES) targets[i].setAttribute(name, style.getPropertyValue(name));
    targets[i].removeAttribute("class");
  });
  for (const [name, value] of Object.entries(position)) copy.setAttribute(name, value);
  return copy;
}

// Return the lines into which the page wraps a text node, each with its rectangle.
function wrappedLines(node) {
  const range = document.createRange();
  const lines = [];
  let end = 0;
  for (const character of node.data) {
    range.setStart(node, end);
    range.setEnd(node, (end += character.length));
    const box = range.getClientRects()[0];
    if (!box || !box.width) continue;
    const line = lines[lines.length - 1];
    if (line && Math.abs(line.box.top - box.top) < box.height / 2) line.text += character;
    else lines.push({ text: character, box });
  }
  return lines.filter((line) => line.text.trim());
}

// Return everything visible in a panel as one SVG element.
function drawPanel(panel, background) {
  const frame = panel.getBoundingClientRect();
  const { width, height } = frame;
  const position = (box) => ({
    x: box.left - frame.left, y: box.top - frame.top, width: box.width, height: box.height,
  });
  const picture = svg("svg", { xmlns: SVG_NAMESPACE, width, height, viewBox: `0 0 ${width} ${height}` });
  picture.append(svg("rect", { width: "100%", height: "100%", fill: background }));
  for (const canvas of panel.querySelectorAll("canvas")) {
    const image = { href: canvas.toDataURL(), ...position(canvas.getBoundingClientRect()) };
    picture.append(svg("image", image));
  }
  for (const element of panel.querySelectorAll("svg")) {
    picture.append(inlineStyles(element, position(element.getBoundingClientRect())));
  }
  const isOutsideSvg = (node) =>
    node.parentElement.closest("svg") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT;
  const texts = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT, isOutsideSvg);
  while (texts.nextNode()) {
    const style = getComputedStyle(texts.currentNode.parentElement);
    const fonts = ["font-family", "font-size", "font-weight"].map((name) => [name, style.getPropertyValue(name)]);
    for (const { text, box } of wrappedLines(texts.currentNode)) {
      const { x, y } = position(box);
      const attributes = { x, y: y + BASELINE_SHARE * box.height, fill: style.color, ...Object.fromEntries(fonts) };
      picture.append(svg("text", attributes, text.trim()));
    }
  }
  return picture;
}

function download(blob, name) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function rasterize(blob, { width, height }) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  URL.revokeObjectURL(image.src);
  const size = { width: Math.ceil(PIXEL_RATIO * width), height: Math.ceil(PIXEL_RATIO * height) };
  const canvas = html("canvas", size);
  canvas.getContext("2d").drawImage(image, 0, 0, size.width, size.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// Return a line that names the panel's choices, the run, the step and the alignment.
function captionOf(panel, page) {
  const selects = [...panel.querySelectorAll(".tools select:not([id$='-scale'], #labels)")];
  const choices = selects.map((select) => select.selectedOptions[0].textContent);
  const title = panel.querySelector("h2").textContent;
  const alignment = document.getElementById("alignment")?.textContent;
  const parts = [
    ...choices.filter((choice) => !title.includes(choice)), page.name, `step ${formatInteger(page.step)}`, alignment,
  ];
  return parts.filter(Boolean).join(" · ");
}

// Save a panel as SVG, or as PNG if it contains canvases.
async function savePanel(panel, page) {
  const caption = panel.appendChild(html("p", { class: "key" }, captionOf(panel, page)));
  const hasCanvas = panel.querySelector("canvas") !== null;
  panel.classList.add("saving");
  page.isSaving = hasCanvas;
  if (hasCanvas) page.redraw();
  const size = panel.getBoundingClientRect();
  const text = new XMLSerializer().serializeToString(drawPanel(panel, page.colour("--surface")));
  panel.classList.remove("saving");
  caption.remove();
  page.isSaving = false;
  if (hasCanvas) page.redraw();
  const drawing = new Blob([text], { type: "image/svg+xml" });
  const runName = page.name.replace(/[^\w.-]+/g, "_").slice(0, LONGEST_FILE_NAME);
  const name = `${runName}-${panel.id}-step-${page.step}`;
  if (hasCanvas) download(await rasterize(drawing, size), `${name}.png`);
  else download(drawing, `${name}.svg`);
}

export function bindSaving(page) {
  for (const button of document.querySelectorAll("button.save")) {
    button.addEventListener("click", () => savePanel(button.closest(".panel"), page));
  }
}
