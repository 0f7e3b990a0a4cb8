// Builders of HTML and SVG elements. Texts become text nodes, never markup.

export const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
export const DASHES = ["", "7 3", "2 2.5", "9 3 2 3", "5 2", "1.5 3", "12 3", "4 2 1 2"];

export function svg(name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG_NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

export function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Return a short sample of the line that draws the i-th curve, for a legend.
export function lineSample(i) {
  const element = svg("svg", { width: 22, height: 8, "aria-hidden": "true" });
  const dash = DASHES[i % DASHES.length];
  const line = { class: `line c${i % 8}`, x1: 0, x2: 22, y1: 4, y2: 4 };
  element.append(svg("line", { ...line, ...(dash && { "stroke-dasharray": dash }) }));
  return element;
}

export function findPanel(id) {
  const panel = document.getElementById(id);
  return { panel, body: panel.querySelector(".body") };
}

// Fill a select with options under the headings of their groups: [group, value, title] each.
export function fillGroups(select, entries) {
  for (const name of new Set(entries.map(([group]) => group))) {
    const members = entries.filter(([group]) => group === name);
    const options = members.map(([, value, title]) => html("option", { value }, title));
    select.append(html("optgroup", { label: name }, ...options));
  }
}
