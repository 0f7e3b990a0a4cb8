// Saving what is drawn: a chart as SVG, a picture as PNG.

const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-linecap", "stroke-linejoin", "font-family", "font-size", "font-weight", "opacity"];

// A chart that looks the same without the page's style.
function standalone(chart, background) {
  const copy = chart.cloneNode(true);
  const [from, to] = [chart, copy].map((one) => [one, ...one.querySelectorAll("*")]);
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of KEPT) to[i].setAttribute(name, style.getPropertyValue(name));
    to[i].removeAttribute("class");
  });
  copy.setAttribute("xmlns", SVG);
  copy.prepend(svg("rect", { width: "100%", height: "100%", fill: background }));
  return new XMLSerializer().serializeToString(copy);
}

function download(blob, name) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// All canvases of a panel beside or below each other, as they stand on the page.
function together(canvases, background) {
  const places = canvases.map((one) => one.getBoundingClientRect());
  const left = Math.min(...places.map((one) => one.left));
  const top = Math.min(...places.map((one) => one.top));
  const scale = 2;
  const whole = html("canvas", {
    width: Math.ceil(scale * (Math.max(...places.map((one) => one.right)) - left)),
    height: Math.ceil(scale * (Math.max(...places.map((one) => one.bottom)) - top)),
  });
  const context = whole.getContext("2d");
  context.fillStyle = background;
  context.fillRect(0, 0, whole.width, whole.height);
  canvases.forEach((one, i) => context.drawImage(one, scale * (places[i].left - left), scale * (places[i].top - top), scale * places[i].width, scale * places[i].height));
  return whole;
}

function savePanel(panel, page) {
  const background = page.colour("--surface");
  const name = `${page.name.replace(/[^\w.-]+/g, "_")}-${panel.id}-step-${page.step}`;
  const charts = [...panel.querySelectorAll("svg.chart")];
  if (charts.length) {
    charts.forEach((chart, i) => download(new Blob([standalone(chart, background)], { type: "image/svg+xml" }), `${name}${charts.length > 1 ? `-${i + 1}` : ""}.svg`));
  } else {
    together([...panel.querySelectorAll("canvas")], background).toBlob((blob) => download(blob, `${name}.png`), "image/png");
  }
}

function bindSaving(page) {
  for (const button of document.querySelectorAll("button.save")) button.addEventListener("click", () => savePanel(button.closest(".panel"), page));
}
