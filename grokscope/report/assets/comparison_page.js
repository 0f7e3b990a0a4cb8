// The page of several runs: which runs are drawn, how they are aligned, and how their seeds are grouped.

import { clamp, formatInteger, unpack } from "./numbers.js";
import { BasePage } from "./base_page.js";
import { makeBand } from "./bands.js";

const MAX_SETTINGS_DRAWN = 8;
const LONGEST_LABEL = 25;

export class ComparisonPage extends BasePage {
  constructor(payload) {
    super(payload);
    this.runs = payload.runs;
    this.axes = payload.axes;
    this.stages = [];
    this.gaps = [];
    this.align = "step";
    this.seeds = "band";
    this.panels = [];
    this.groups = this.groupBySettings();
    this.drawn = new Set(this.initialGroups().flat());
    this.updateRange();
    this.step = this.last;
  }

  // Return the runs by the label of their settings; runs that differ only in their seeds share a label.
  groupBySettings() {
    const names = this.axes.filter((name) => name !== "seed");
    const groups = new Map();
    for (const run of this.runs) {
      const settings = names.filter((name) => name in run.settings).map((name) => {
        return `${name.split(".").pop().replaceAll("_", " ")} ${run.settings[name]}`;
      });
      const label = this.axes.length ? settings.join(", ") : run.name;
      groups.set(label, [...(groups.get(label) || []), run]);
    }
    return groups;
  }

  // Return the groups that are drawn at first: of many, a few that are spread evenly over their order.
  initialGroups() {
    const groups = [...this.groups.values()];
    const stride = Math.max(1, groups.length / MAX_SETTINGS_DRAWN);
    return groups.filter((_, i) => Math.floor(i / stride) !== Math.floor((i - 1) / stride));
  }

  // Return a curve's label: the settings, or the run's name if the settings are unique to each run or too long.
  curveLabel(run, label, members) {
    const isLong = [...this.groups.keys()].some((key) => key.length > LONGEST_LABEL);
    if (isLong || this.groups.size === this.runs.length) return run.name;
    return members.length > 1 ? [label, `seed ${run.settings.seed}`].filter(Boolean).join(", ") : label;
  }

  // Return the step that becomes a run's step 0, or null if the run never reached the event of the alignment.
  origin(run) {
    return this.align === "step" ? 0 : run[this.align];
  }

  updateRange() {
    const ranges = this.runs.filter((run) => this.origin(run) !== null).map((run) => {
      const steps = unpack(run.curves["log.test_loss"].steps);
      return [steps[0] - this.origin(run), steps[steps.length - 1] - this.origin(run)];
    });
    this.first = Math.min(0, ...ranges.map(([first]) => first));
    this.last = Math.max(1, ...ranges.map(([, last]) => last));
  }

  stepScale() {
    // Steps before an event are negative, so they have no logarithm.
    return super.stepScale(this.align === "step" ? this.axis : "linear");
  }

  goTo(step) {
    this.step = clamp(Math.round(step), this.first, this.last);
    for (const panel of this.panels) panel.chart.setStep(this.step);
  }

  redraw() {
    this.forgetColours();
    for (const panel of this.panels) panel.update();
    this.describeAlignment();
  }

  // Say what step 0 is, and which runs are left out.
  describeAlignment() {
    const nWithout = this.runs.filter((run) => this.origin(run) === null).length;
    const event = document.getElementById("align").selectedOptions[0].textContent;
    const notes = [];
    if (this.align !== "step") notes.push(`step 0 is each run’s ${event}`);
    if (nWithout) {
      const verb = nWithout === 1 ? "run never reached it and is" : "runs never reached it and are";
      notes.push(`${formatInteger(nWithout)} ${verb} left out`);
    }
    if (this.drawn.size < this.runs.length) {
      const [nDrawn, nRuns] = [this.drawn.size, this.runs.length].map(formatInteger);
      notes.push(`showing the ${nDrawn} of ${nRuns} runs that are ticked in the table`);
    }
    document.getElementById("alignment").textContent = notes.join("; ");
  }

  // Return the lines of a chart of one quantity: a band for each group of seeds, or a curve for each run.
  lines(key) {
    const scale = this.stepScale();
    return [...this.groups].flatMap(([label, members]) => {
      const runs = members.filter((run) => this.drawn.has(run) && run.curves[key] && this.origin(run) !== null);
      const curves = runs.map((run) => this.alignedCurve(run, key, this.curveLabel(run, label, members)));
      const band = curves.length > 1 && this.seeds === "band" ? makeBand(curves, scale) : null;
      if (!band) return curves;
      return [{ ...band, label: label ? `${label} (${curves.length} seeds)` : `${curves.length} seeds` }];
    });
  }

  alignedCurve(run, key, label) {
    const curve = run.curves[key];
    const steps = unpack(curve.steps);
    const origin = this.origin(run);
    const aligned = origin ? Float64Array.from(steps, (step) => step - origin) : steps;
    return { label, steps: aligned, values: unpack(curve.values) };
  }
}
