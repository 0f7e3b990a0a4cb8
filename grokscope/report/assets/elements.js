// Elements, and the lines of the payload as curves.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 3", "2 2.5", "9 3 2 3", "5 2", "1.5 3", "12 3", "4 2 1 2"];
let nCharts = 0;

function svg(name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A short piece of the line that the i-th curve is drawn with.
function sample(i) {
  const element = svg("svg", { width: 22, height: 8, "aria-hidden": "true" });
  const dash = DASHES[i % DASHES.length];
  element.append(svg("line", { class: `line c${i % 8}`, x1: 0, x2: 22, y1: 4, y2: 4, ...(dash && { "stroke-dasharray": dash }) }));
  return element;
}

// A line of the payload with its arrays unpacked.
function curve(line) {
  const values = unpacked(line.values);
  const [error, residual] = [unpacked(line.error), unpacked(line.residual)];
  const spread = error ? error.map((one) => 2 * one) : residual;
  return { ...line, steps: unpacked(line.steps), values, spread, isResidual: !error && !!residual, shuffled: unpacked(line.shuffled) };
}

function panelOf(id) {
  const panel = document.getElementById(id);
  return { panel, body: panel.querySelector(".body") };
}
