// The phase diagram: a square per run, over two of the settings that vary.

import { findPanel, html } from "./elements.js";
import { compareValues, formatInteger, formatPercent } from "./numbers.js";

const PHASE_LETTERS = { comprehension: "C", grokking: "G", memorization: "M", confusion: "X" };

export function buildDiagram(page) {
  const { panel, body } = findPanel("diagram");
  const axes = page.axes.filter((name) => name !== "seed");
  if (!axes.length) {
    panel.remove();
    return;
  }
  const [x, y] = ["diagram-x", "diagram-y"].map((id) => document.getElementById(id));
  for (const select of [x, y]) select.append(...axes.map((name) => html("option", { value: name }, name)));
  y.append(html("option", { value: "" }, "none"));
  y.value = axes.length === 1 ? "" : axes[0];
  x.value = axes[1] || axes[0];
  const draw = () => body.replaceChildren(makeTable(page, x.value, y.value));
  page.bindChoice("diagram-x", draw);
  page.bindChoice("diagram-y", draw);
  draw();
}

// Return the diagram over the settings `x` and `y`; an empty `y` makes a single row.
function makeTable(page, x, y) {
  const columns = sortedValues(page.runs, x);
  const levels = y ? sortedValues(page.runs, y).reverse() : [null];
  const rows = levels.map((level) => {
    const members = page.runs.filter((run) => level === null || run.settings[y] === level);
    const cells = columns.map((column) => {
      const runs = members.filter((run) => run.settings[x] === column);
      return html("td", {}, ...runs.map((run) => makeSquare(page, run)));
    });
    return html("tr", {}, html("th", { scope: "row" }, level === null ? "" : formatSetting(level)), ...cells);
  });
  const corner = html("th", {}, y ? `${y} ↑  ${x} →` : `${x} →`);
  const heads = columns.map((column) => html("th", { scope: "col" }, formatSetting(column)));
  return html("table", { class: "diagram" }, ...rows, html("tr", {}, corner, ...heads));
}

function sortedValues(runs, name) {
  return [...new Set(runs.map((run) => run.settings[name]))].sort(compareValues);
}

// A setting that a run's task does not use is undefined.
const formatSetting = (value) => String(value ?? "—");
const formatStep = (step) => (step === null ? "—" : formatInteger(step));

function makeSquare(page, run) {
  const label = { class: `phase ${run.phase}`, "aria-label": `${run.name}: ${run.phase || run.reason}` };
  const square = html(run.link ? "a" : "span", label, PHASE_LETTERS[run.phase] || "?");
  if (run.link) square.setAttribute("href", run.link);
  const rows = [
    run.name,
    run.phase || run.reason,
    `memorized ${formatStep(run.memorized)}, generalised ${formatStep(run.generalised)}`,
    `final test accuracy ${formatPercent(run.test_accuracy)}`,
  ];
  square.addEventListener("pointermove", (event) => page.showTip(event, rows));
  square.addEventListener("pointerleave", () => page.showTip(null));
  return square;
}
