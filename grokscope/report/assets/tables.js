// The numbers of each chart as a table, built when the reader opens it.

import { formatInteger, formatNumber, nearestIndex } from "./numbers.js";
import { html } from "./elements.js";

const MAX_ROWS = 200;

// Add a closed table below a panel. `specOf` returns the chart's spec when the table is opened.
export function addTable(panel, specOf) {
  const details = html("details", { class: "table" }, html("summary", {}, "Table of these values"));
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    const scroll = html("div", { class: "scroll", tabindex: "0" }, buildTable(specOf()));
    details.replaceChildren(details.firstElementChild, scroll);
  });
  panel.append(details);
}

export function closeTable(panel) {
  panel.querySelector("details").open = false;
}

function buildTable({ label, lines }) {
  const steps = lines.reduce((longest, line) => (line.steps.length > longest.length ? line.steps : longest), []);
  const stride = Math.ceil(steps.length / MAX_ROWS);
  const thinned = `${label}: every ${formatInteger(stride)} rows of ${formatInteger(steps.length)}, and the last`;
  const columns = lines.flatMap((line) => [
    { line, name: line.label, values: line.values },
    ...(line.spread ? [{ line, name: `${line.label}, ±`, values: line.spread }] : []),
    ...(line.shuffled ? [{ line, name: `${line.label}, shuffled`, values: line.shuffled }] : []),
  ]);
  const names = ["step", ...columns.map((column) => column.name)];
  const head = html("tr", {}, ...names.map((name) => html("th", { scope: "col" }, name)));
  const body = html("tbody");
  steps.forEach((step, j) => {
    if (j % stride && j !== steps.length - 1) return;
    const cells = columns.map(({ line, values }) => {
      const k = nearestIndex(line.steps, step);
      return html("td", {}, line.steps[k] === step ? formatNumber(values[k], 6) : "");
    });
    body.append(html("tr", {}, html("th", { scope: "row" }, formatInteger(step)), ...cells));
  });
  return html("table", {}, html("caption", {}, stride > 1 ? thinned : label), html("thead", {}, head), body);
}
