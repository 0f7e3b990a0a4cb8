// Curves over the steps as SVG, with axes, stages, a legend, a cursor at the page's step and a tooltip.

import { html, lineSample, svg } from "./elements.js";
import {
  clamp, formatInteger, formatNumber, formatPercent, nearestIndex, superscript, valueScale,
} from "./numbers.js";
import { createStepNote } from "./step_note.js";
import { drawCurve } from "./curves.js";
import { drawStages } from "./stages.js";

const MAX_NAMED_CURVES = 10;
const LONGEST_CURVE_NAME = 25;
let nCharts = 0;

export class Chart {
  // `spec`: lines, kind ("linear" or "log"), unit, isPercent, height, label, namesStages (whether the stages' names
  // are drawn) and countsCheckpoints (whether the note says at how many checkpoints the lines were measured).
  constructor(host, spec, page) {
    Object.assign(this, { spec, page, number: nCharts++ });
    this.readout = host.appendChild(html("div", { class: "readout" }));
    this.frame = host.appendChild(html("div", { class: "frame" }));
    this.notes = host.appendChild(html("p", { class: "key" }));
    page.watchSize(this.frame, () => this.draw());
    this.listen();
  }

  change(spec) {
    Object.assign(this.spec, spec);
    this.draw();
  }

  draw() {
    const width = Math.round(this.frame.clientWidth);
    if (width < 40) return;
    const { spec, page } = this;
    const { lines } = spec;
    const height = spec.height || 220;
    const longest = Math.max(...lines.map((line) => line.label.length));
    // The curves' names need space that narrow charts lack.
    const isFew = lines.length > 1 && lines.length <= MAX_NAMED_CURVES;
    const namesCurves = width > 460 && isFew && longest <= LONGEST_CURVE_NAME;
    const [right, top] = [namesCurves ? 18 + 6.7 * longest : 14, spec.namesStages || spec.unit ? 22 : 8];
    const margin = { left: 50, right, top, bottom: 34 };
    const [innerWidth, innerHeight] = [width - margin.left - margin.right, height - margin.top - margin.bottom];
    this.box = { ...margin, width: innerWidth, height: innerHeight, outerWidth: width };
    this.x = page.stepScale();
    this.y = this.makeValueScale();
    const size = { viewBox: `0 0 ${width} ${height}`, width, height };
    const chart = svg("svg", { class: "chart", ...size, role: "img", "aria-label": this.description() });
    drawStages(this, chart);
    this.drawAxes(chart);
    const clip = svg("clipPath", { id: `clip-${this.number}` });
    clip.append(svg("rect", { x: margin.left, y: margin.top - 2, width: innerWidth + 1, height: innerHeight + 4 }));
    const plot = svg("g", { "clip-path": `url(#clip-${this.number})` });
    lines.forEach((line, i) => drawCurve(this, plot, line, i));
    chart.append(clip, plot);
    if (namesCurves) this.drawNames(chart);
    const ends = { y1: margin.top, y2: height - margin.bottom };
    this.cursor = svg("line", { class: "cursor", ...ends });
    this.pointer = svg("line", { class: "pointer", ...ends, visibility: "hidden" });
    this.dots = lines.map((_line, i) => svg("circle", { class: `dot c${i % 8}`, r: 3.5 }));
    chart.append(this.pointer, this.cursor, ...this.dots);
    this.frame.replaceChildren(chart);
    this.chart = chart;
    this.fillReadout();
    this.setStep(page.step);
  }

  description() {
    const names = this.spec.lines.map((line) => line.label).join(", ");
    return `${this.spec.label}: ${names} over the steps. A table of the values is below.`;
  }

  px(step) {
    return this.box.left + this.x.at(step) * this.box.width;
  }

  py(value) {
    return this.box.top + (1 - this.y.at(value)) * this.box.height;
  }

  makeValueScale() {
    const { spec } = this;
    if (spec.isPercent) return valueScale("linear", -0.03, 1.03);
    let [low, high] = [Infinity, -Infinity];
    const isLog = spec.kind === "log";
    const include = (value) => {
      if (Number.isFinite(value) && (!isLog || value > 0)) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    };
    for (const line of spec.lines) {
      line.values.forEach(include);
      if (line.shuffled) line.shuffled.forEach(include);
      if (line.untrained !== undefined) include(line.untrained);
    }
    if (low === Infinity) return valueScale("linear", 0, 1);
    if (isLog) return valueScale("log", low / 1.3, high * 1.3);
    if (low > 0 && low < 0.5 * high) low = 0;
    const pad = (high - low || Math.abs(high) || 1) * 0.04;
    return valueScale("linear", low === 0 ? 0 : low - pad, high + pad);
  }

  drawAxes(chart) {
    const axes = svg("g", { class: "axes" });
    const { box, spec } = this;
    const [right, bottom] = [box.left + box.width, box.top + box.height];
    const ticks = this.y.ticks(Math.max(2, Math.round(box.height / 38)));
    const format = this.tickFormat(ticks);
    for (const tick of ticks) {
      const y = this.py(tick);
      if (!(y >= box.top - 1 && y <= bottom + 1)) continue;
      axes.append(svg("line", { class: "grid", x1: box.left, x2: right, y1: y, y2: y }));
      axes.append(svg("text", { x: box.left - 7, y: y + 3.5, "text-anchor": "end" }, format(tick)));
    }
    axes.append(svg("line", { class: "axis", x1: box.left, x2: right, y1: bottom, y2: bottom }));
    for (const tick of this.x.minorTicks()) {
      const x = this.px(tick);
      axes.append(svg("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 2.5 }));
    }
    let free = -Infinity;
    for (const tick of this.x.ticks(Math.max(2, Math.round(box.width / 110)))) {
      const [x, text] = [this.px(tick), formatInteger(tick)];
      axes.append(svg("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 5 }));
      const half = 3.4 * text.length;
      if (x - half < free) continue;
      free = x + half + 6;
      const centre = { x: clamp(x, half, box.outerWidth - half), y: bottom + 17, "text-anchor": "middle" };
      axes.append(svg("text", centre, text));
    }
    axes.append(svg("text", { class: "axis-title", x: right, y: bottom + 30, "text-anchor": "end" }, "step"));
    if (spec.unit) axes.append(svg("text", { class: "axis-title", x: 0, y: 12 }, spec.unit));
    chart.append(axes);
  }

  // Return the format of the value axis: powers of ten, if one of the ticks is very small or large.
  tickFormat(ticks) {
    const { kind, isPercent } = this.spec;
    if (isPercent) return (tick) => formatPercent(tick, 0);
    const arePowers = ticks.every((tick) => Number.isInteger(Math.log10(tick)));
    if (kind === "log" && arePowers && ticks.some((tick) => tick < 1e-2 || tick > 1e4)) {
      return (tick) => (tick === 1 ? "1" : `10${superscript(Math.round(Math.log10(tick)))}`);
    }
    return (tick) => formatNumber(tick, 3);
  }

  // Draw each curve's name at its end, moved apart from names that it would overlap.
  drawNames(chart) {
    const [top, bottom] = [this.box.top, this.box.top + this.box.height];
    const names = this.spec.lines.map((line, i) => {
      let j = line.values.length - 1;
      while (j > 0 && !Number.isFinite(this.py(line.values[j]))) j--;
      return { i, text: line.label, y: clamp(this.py(line.values[j]), top, bottom) };
    }).filter((name) => Number.isFinite(name.y)).sort((a, b) => a.y - b.y);
    for (let j = 1; j < names.length; j++) names[j].y = Math.max(names[j].y, names[j - 1].y + 13);
    let floor = bottom + 3;
    for (let j = names.length - 1; j >= 0; j--) {
      names[j].y = Math.min(names[j].y, floor);
      floor = names[j].y - 13;
    }
    const x = this.box.left + this.box.width + 7;
    for (const { i, text, y } of names) chart.append(svg("text", { class: `name c${i % 8}`, x, y: y + 3.5 }, text));
  }

  fillReadout() {
    const { lines } = this.spec;
    this.chips = lines.map((line, i) => {
      const value = html("b");
      return { value, element: html("span", { class: "chip" }, lineSample(i), `${line.label} `, value) };
    });
    this.readout.replaceChildren(...this.chips.map((chip) => chip.element));
    // Lines that were measured at the same steps share one note.
    const shareSteps = lines.every((line) => String(line.steps) === String(lines[0].steps));
    this.stepNotes = [];
    (shareSteps ? lines.slice(0, 1) : lines).forEach((line, i) => {
      const note = createStepNote(this.page, "measured at", line.steps);
      if (!note) return;
      (shareSteps ? this.readout : this.chips[i].element).append(note.element);
      this.stepNotes.push(note);
    });
    const notes = this.describeBands();
    this.notes.textContent = notes.join(" · ");
    this.notes.hidden = !notes.length;
  }

  // Return what the bands and the dotted and thin lines mean, and where the lines were measured.
  describeBands() {
    const { lines, countsCheckpoints } = this.spec;
    const counts = [...new Set(lines.map((line) => line.steps.length))];
    const noun = Math.max(...counts) === 1 ? "checkpoint" : "checkpoints";
    const notes = countsCheckpoints ? [`measured at ${counts.map(formatInteger).join(" and ")} ${noun}`] : [];
    if (lines.some((line) => line.low)) notes.push("line: median over seeds, band: range over seeds");
    const withError = lines.filter((line) => line.spread && !line.isResidual);
    const withResidual = lines.filter((line) => line.isResidual);
    // Two kinds of band in one chart are told apart by the names of their lines.
    const isMixed = withError.length && withResidual.length;
    const bandOf = (members) => (isMixed ? `band of ${members.map((line) => line.label).join(", ")}` : "band");
    if (withError.length) notes.push(`${bandOf(withError)}: ± 2 standard errors`);
    if (withResidual.length) notes.push(`${bandOf(withResidual)}: ± the residual`);
    if (lines.some((line) => line.shuffled)) notes.push("dotted: with shuffled tokens");
    if (lines.some((line) => line.untrained !== undefined)) notes.push("thin horizontal line: untrained model");
    return notes;
  }

  format(value) {
    return this.spec.isPercent ? formatPercent(value, 2) : formatNumber(value, 4);
  }

  setStep(step) {
    if (!this.chart) return;
    const x = this.px(step);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.spec.lines.forEach((line, i) => {
      const j = nearestIndex(line.steps, step);
      const y = this.py(line.values[j]);
      const dot = this.dots[i];
      dot.setAttribute("cx", this.px(line.steps[j]));
      dot.setAttribute("cy", Number.isFinite(y) ? y : -99);
      this.chips[i].value.textContent = this.format(line.values[j]);
    });
    for (const note of this.stepNotes) note.setStep(step);
  }

  listen() {
    const stepAt = (event) => {
      const left = this.chart.getBoundingClientRect().left;
      return this.x.step((event.clientX - left - this.box.left) / this.box.width);
    };
    this.frame.addEventListener("pointerdown", (event) => {
      if (!this.chart || event.button) return;
      // A mouse drags the cursor; a finger must still be able to scroll the page.
      if (event.pointerType === "mouse") this.frame.setPointerCapture(event.pointerId);
      this.isDragging = true;
      this.page.goTo(stepAt(event));
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.frame.addEventListener(name, () => { this.isDragging = false; });
    }
    this.frame.addEventListener("pointermove", (event) => {
      if (!this.chart || !this.spec.lines.length) return;
      const step = stepAt(event);
      if (this.isDragging) this.page.goTo(step);
      const { steps } = this.spec.lines[0];
      const nearest = steps[nearestIndex(steps, step)];
      for (const key of ["x1", "x2"]) this.pointer.setAttribute(key, this.px(nearest));
      this.pointer.setAttribute("visibility", "visible");
      const rows = this.spec.lines.map((line) => this.describeValue(line, nearestIndex(line.steps, step), nearest));
      this.page.showTip(event, [`step ${formatInteger(nearest)}`, ...rows]);
    });
    this.frame.addEventListener("pointerleave", () => {
      if (this.pointer) this.pointer.setAttribute("visibility", "hidden");
      this.page.showTip(null);
    });
  }

  // Return a line's value in row j, with its step where that is not the tooltip's.
  describeValue(line, j, tipStep) {
    const spread = line.spread ? ` ± ${formatNumber(line.spread[j], 2)}` : "";
    const shuffled = line.shuffled ? `, shuffled ${this.format(line.shuffled[j])}` : "";
    const step = line.steps[j] === tipStep ? "" : ` (step ${formatInteger(line.steps[j])})`;
    return `${line.label} ${this.format(line.values[j])}${spread}${shuffled}${step}`;
  }
}
