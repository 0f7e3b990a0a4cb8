// The page of several runs: build its panels from the payload.

import { fillGroups, findPanel } from "./elements.js";
import { Chart } from "./chart.js";
import { ComparisonPage } from "./comparison_page.js";
import { addTable, closeTable } from "./tables.js";
import { bindSaving } from "./saving.js";
import { bindTable } from "./runs_table.js";
import { buildDiagram } from "./phase_diagram.js";

const INITIAL_QUANTITIES = {
  "compare-1": "log.test_accuracy",
  "compare-2": "log.test_loss",
  "compare-3": "weight_norm.weight_norm",
  "compare-4": "sharpness.sharpness",
};

// Return the titles of the quantities that at least two runs have, by key.
function comparableTitles(runs) {
  const curves = runs.flatMap((run) => Object.entries(run.curves));
  const titles = new Map();
  // Runs with different loss functions have different titles for one key.
  for (const [key, { title }] of curves) titles.set(key, (titles.get(key) || new Set()).add(title));
  for (const key of [...titles.keys()]) {
    if (runs.filter((run) => run.curves[key]).length < 2) titles.delete(key);
  }
  return new Map([...titles].map(([key, names]) => [key, [...names].join(" or ")]));
}

function buildCurves(page, id, initial) {
  const { panel, body } = findPanel(id);
  const titles = comparableTitles(page.runs);
  if (!titles.has(initial)) {
    panel.remove();
    return;
  }
  const [select, scale, heading] = ["of", "scale", "title"].map((part) => document.getElementById(`${id}-${part}`));
  fillGroups(select, [...titles].map(([key, title]) => [key.split(".")[0], key, title]));
  select.value = initial;
  const spec = () => {
    const key = select.value;
    const label = titles.get(key);
    heading.textContent = label;
    const defaultKind = /loss|sharpness|trace/.test(key) ? "log" : "linear";
    const kind = scale.value === "auto" ? defaultKind : scale.value;
    const isPercent = key.endsWith("accuracy") && scale.value !== "log";
    const unit = key.endsWith("_loss") ? "nats" : "";
    return { lines: page.lines(key), kind, isPercent, unit, label, height: 270 };
  };
  const chart = new Chart(body, spec(), page);
  const update = () => {
    chart.change(spec());
    closeTable(panel);
  };
  page.panels.push({ chart, update });
  page.bindChoice(`${id}-of`, update);
  page.bindChoice(`${id}-scale`, update);
  addTable(panel, () => chart.spec);
}

function start() {
  const page = new ComparisonPage(JSON.parse(document.getElementById("numbers").textContent));
  page.bindChoice("align", (value) => {
    page.align = value;
    page.updateRange();
    page.step = value === "step" ? page.last : 0;
    page.redraw();
  });
  page.bindChoice("seeds", (value) => {
    page.seeds = value;
    page.redraw();
  });
  page.bindPage();
  for (const [id, initial] of Object.entries(INITIAL_QUANTITIES)) buildCurves(page, id, initial);
  buildDiagram(page);
  bindTable(page);
  bindSaving(page);
  page.describeAlignment();
  document.documentElement.classList.add("ready");
  page.restoreChoices();
}

start();
