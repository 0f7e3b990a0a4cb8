// The page of one run: build its panels from the payload.

import { Chart } from "./chart.js";
import { Cloud, classLegend } from "./clouds.js";
import { Grid } from "./grid.js";
import { Heads } from "./heads.js";
import { RunPage } from "./run_page.js";
import { Spectrum } from "./spectrum.js";
import { addPictureNote } from "./step_note.js";
import { addStageLegend } from "./stages.js";
import { addTable, closeTable } from "./tables.js";
import { bindSaving } from "./saving.js";
import { fillGroups, findPanel, html } from "./elements.js";
import { formatInteger, formatPercent, unpack } from "./numbers.js";
import { unpackLine } from "./curves.js";

// What each panel of a chosen measure shows first: the first of these quantities that the run has.
const INITIAL_QUANTITIES = {
  "measure-1": ["weight_norm.norms"],
  "measure-2": ["sharpness.both"],
  "measure-3": [
    "log.sequence_accuracy",
    "log.test_accuracy_by_task",
    "progress.losses",
    "embedding.circle",
    "representations.losses",
    "embedding.effective_dimension",
  ],
  "measure-4": [
    "attention.prefix_matching",
    "log.test_loss_by_task",
    "fourier.gini",
    "representations.embedding_shares",
    "weight_norm.matrices",
  ],
};

function buildLosses(page) {
  const { panel, body } = findPanel("losses");
  const { log } = page.payload;
  const steps = unpack(log.steps);
  const lines = (kind) => page.parts.map(({ label, prefix }) => {
    return { label, steps, values: unpack(log[`${prefix}${kind}`]), gaps: page.gaps };
  });
  const addChart = (spec) => {
    const chart = new Chart(body.appendChild(html("div")), spec, page);
    page.follow(panel, chart);
    return chart;
  };
  const loss = { lines: lines("loss"), kind: "log", unit: "nats", height: 250, label: `${page.payload.loss} loss` };
  const accuracy = { lines: lines("accuracy"), isPercent: true, unit: "accuracy", height: 180, label: "Accuracy" };
  addChart({ ...loss, namesStages: true });
  addChart(accuracy);
  page.follow(panel, addStageLegend(page, body));
  const columns = ["loss", "accuracy"].flatMap((kind) => {
    const prefix = kind === "loss" ? `${page.payload.loss} ` : "";
    return lines(kind).map((line) => ({ ...line, label: `${prefix}${line.label} ${kind}` }));
  });
  addTable(panel, () => ({ label: "Losses and accuracies", lines: columns }));
}

function buildClouds(page) {
  const { clouds } = page.payload;
  const { panel, body } = findPanel("embedding");
  const { panel: planesPanel, body: planesBody } = findPanel("planes");
  const figures = html("div", { class: "planes" });
  clouds.planes.forEach((plane, i) => {
    const isLarge = i === 0;
    const isFrequency = plane.kind === "frequency";
    const caption = html("span", {}, isFrequency ? `${formatPercent(plane.share)} of variance at the end` : "");
    const title = html("b", {}, isFrequency ? plane.title : "components 1 and 2");
    const frame = html("div", { class: "picture" });
    const figure = html("figure", {}, html("figcaption", {}, title, caption), frame);
    (isLarge ? body : figures).append(figure);
    if (isLarge && clouds.classes) body.append(classLegend(clouds));
    page.follow(isLarge ? panel : planesPanel, new Cloud(frame, caption, page, clouds, plane, isLarge).picture);
  });
  if (clouds.planes.length > 1) {
    planesBody.append(figures);
    addThinningNote(page, planesPanel, clouds);
  } else {
    planesPanel.remove();
  }
  page.bindChoice("labels", (value) => {
    page.labels = value === "none" ? null : value;
    page.redraw();
  });
  addThinningNote(page, panel, clouds);
}

// Say at how many checkpoints a panel is drawn, if not at all of them.
function addThinningNote(page, panel, { steps }) {
  const unpacked = unpack(steps);
  if (unpacked.length === page.steps.length) return;
  const words = `drawn at ${formatInteger(unpacked.length)} of ${formatInteger(page.steps.length)} checkpoints`;
  addPictureNote(page, panel, words, unpacked);
}

function buildSpectrum(page) {
  const { spectra } = page.payload;
  const { panel, body } = findPanel("spectrum");
  if (!spectra.length) {
    document.getElementById("main").classList.add("no-circle");
    panel.remove();
    return;
  }
  const options = spectra.map((spectrum, i) => html("option", { value: i }, spectrum.title));
  document.getElementById("spectrum-of").append(...options);
  const spectrum = new Spectrum(body, page, spectra);
  page.bindChoice("spectrum-of", (value) => {
    spectrum.choose(Number(value));
    closeTable(panel);
  });
  page.follow(panel, spectrum);
  addTable(panel, () => ({ label: spectrum.spectrum.title, lines: spectrum.lines() }));
}

function buildHeads(page) {
  const { attention } = page.payload;
  const { panel, body } = findPanel("heads");
  if (!attention) {
    panel.remove();
    return;
  }
  page.follow(panel, new Heads(body, page, attention));
  const steps = unpack(attention.steps);
  const [nEquations, nSteps] = [attention.n_equations, steps.length].map(formatInteger);
  addPictureNote(page, panel, `means over ${nEquations} equations, at ${nSteps} checkpoints`, steps);
}

function buildGrid(page) {
  const { panel, body } = findPanel("pairs");
  if (!page.payload.grid) {
    panel.remove();
    return;
  }
  const grid = new Grid(body, page, page.payload.grid);
  page.bindChoice("pairs-show", (value) => grid.choose(value));
  page.follow(panel, grid);
  addThinningNote(page, panel, page.payload.grid);
}

// Build a panel that shows any measured quantity, as the reader chooses.
function buildMeasure(page, id, initialKeys) {
  const { quantities } = page.payload;
  const { panel, body } = findPanel(id);
  const find = (key) => quantities.find((quantity) => quantity.key === key);
  const initial = initialKeys.find(find);
  if (!initial) {
    panel.remove();
    return;
  }
  const [select, scale, heading] = ["of", "scale", "title"].map((part) => document.getElementById(`${id}-${part}`));
  fillGroups(select, quantities.map(({ group, key, title }) => [group, key, title]));
  select.value = initial;
  const spec = () => {
    const { group, title, unit, lines, logarithmic } = find(select.value);
    const unpacked = lines.map(unpackLine);
    const canBeLog = unpacked.some((line) => line.values.some((value) => value > 0));
    const defaultKind = logarithmic && canBeLog ? "log" : "linear";
    const kind = scale.value === "auto" ? defaultKind : scale.value;
    heading.textContent = `${group.replaceAll("_", " ")}: ${title}`;
    return { lines: unpacked, kind, unit, label: `${group}: ${title}`, height: 250, countsCheckpoints: true };
  };
  const chart = new Chart(body, spec(), page);
  const update = () => {
    chart.change(spec());
    closeTable(panel);
  };
  page.bindChoice(`${id}-of`, update);
  page.bindChoice(`${id}-scale`, update);
  page.follow(panel, chart);
  addTable(panel, () => chart.spec);
}

function bindCopyButtons() {
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.of).textContent);
      button.textContent = "copied";
    });
  }
}

function start() {
  const page = new RunPage(JSON.parse(document.getElementById("numbers").textContent));
  page.bindControls();
  buildLosses(page);
  buildClouds(page);
  buildSpectrum(page);
  buildHeads(page);
  buildGrid(page);
  for (const [id, keys] of Object.entries(INITIAL_QUANTITIES)) buildMeasure(page, id, keys);
  bindSaving(page);
  bindCopyButtons();
  document.documentElement.classList.add("ready");
  page.showStep();
  page.restoreChoices();
}

start();
