// A Fourier spectrum, at the page's step as bars and over the whole run as a heat map.

import { Picture, drawText } from "./canvas.js";
import { clamp, formatInteger, formatNumber, formatPercent, nearestIndex, roundTicks, unpack } from "./numbers.js";
import { createStepNote } from "./step_note.js";
import { html } from "./elements.js";

const LEFT = 46;
// The widths of the margins on both sides together.
const MARGINS = 56;
// Below 1, so that small values of the heat map are visible too.
const BRIGHTNESS_EXPONENT = 0.6;

export class Spectrum {
  constructor(host, page, spectra) {
    Object.assign(this, { page, spectra });
    const [bars, history] = [html("div", { class: "picture" }), html("div", { class: "picture" })];
    this.note = html("p", { class: "key" });
    host.append(bars, history, this.note);
    this.bars = new Picture(bars, page, {
      label: "Fourier spectrum at this step",
      height: () => 190,
      paint: (...view) => this.paintBars(...view),
      describe: (x) => this.describeBar(x),
    });
    this.history = new Picture(history, page, {
      label: "Fourier spectrum over the run: a row for each frequency",
      height: () => 150,
      paint: (...view) => this.paintHistory(...view),
      describe: (x, y) => this.describeHistory(x, y),
    });
    history.addEventListener("pointerdown", (event) => page.goTo(this.stepAt(event.offsetX)));
    this.choose(0);
  }

  choose(index) {
    const spectrum = this.spectra[index];
    this.spectrum = spectrum;
    this.values = unpack(spectrum.values);
    this.steps = unpack(spectrum.steps);
    this.n = spectrum.frequencies.length;
    this.keyFrequencies = new Set(spectrum.key);
    this.highest = this.values.reduce((highest, value) => Math.max(highest, value), 0) || 1;
    this.image = null;
    this.stepNote = createStepNote(this.page, "bars measured at", this.steps);
    this.note.replaceChildren(...(this.stepNote ? [this.stepNote.element] : []));
    this.draw();
  }

  value(frame, i) {
    return this.values[frame * this.n + i];
  }

  // Return each frequency's values over the steps, for the table.
  lines() {
    return this.spectrum.frequencies.map((frequency, i) => {
      const values = Float32Array.from(this.steps, (_, frame) => this.value(frame, i));
      return { label: `k = ${frequency}`, steps: this.steps, values };
    });
  }

  format(value) {
    return this.spectrum.unit === "share" ? formatPercent(value, 2) : formatNumber(value);
  }

  describeBar(x) {
    const i = clamp(Math.floor(((x - LEFT) / (this.bars.width - MARGINS)) * this.n), 0, this.n - 1);
    const frequency = this.spectrum.frequencies[i];
    const name = this.keyFrequencies.has(frequency) ? `frequency ${frequency} (key)` : `frequency ${frequency}`;
    return [name, this.format(this.value(nearestIndex(this.steps, this.page.step), i))];
  }

  paintBars(context, width, height, step) {
    const { page, n, spectrum } = this;
    const frame = nearestIndex(this.steps, step);
    if (this.stepNote) this.stepNote.setStep(step);
    const box = { left: LEFT, width: width - MARGINS, top: 18, height: height - 50 };
    const bottom = box.top + box.height;
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => page.colour(name));
    const percentDigits = this.highest < 0.05 ? 1 : 0;
    for (const tick of roundTicks(0, this.highest, 3)) {
      const y = bottom - (tick / this.highest) * box.height;
      context.fillStyle = line;
      context.fillRect(box.left, y, box.width, 1);
      const text = spectrum.unit === "share" ? formatPercent(tick, percentDigits) : formatNumber(tick, 3);
      drawText(context, text, box.left - 7, y + 4, { colour: soft, align: "right" });
    }
    const slot = box.width / n;
    const barWidth = Math.max(1, slot * 0.7);
    const stride = [1, 2, 5, 10, 20, 50, 100, 200].find((count) => count * slot > 26) || n;
    spectrum.frequencies.forEach((frequency, i) => {
      const barHeight = (this.value(frame, i) / this.highest) * box.height;
      const x = box.left + (i + 0.5) * slot;
      const isKey = this.keyFrequencies.has(frequency);
      context.fillStyle = page.colour(isKey ? "--c1" : "--c0");
      context.fillRect(x - barWidth / 2, bottom - barHeight, barWidth, barHeight);
      const text = String(frequency);
      if (isKey) drawText(context, text, x, bottom - barHeight - 4, { colour: ink, align: "center", weight: 600 });
      if (frequency % stride === 0) drawText(context, text, x, bottom + 14, { colour: soft, align: "center" });
    });
    drawText(context, "frequency k", box.left + box.width, bottom + 28, { colour: soft, align: "right" });
  }

  historyBox(width, height) {
    return { left: LEFT, width: width - MARGINS, top: 4, height: height - 36 };
  }

  stepAt(x) {
    return this.page.stepScale().step((x - LEFT) / (this.history.width - MARGINS));
  }

  paintHistory(context, width, height, step) {
    const { page, n } = this;
    const box = this.historyBox(width, height);
    const scale = page.stepScale();
    const imageKey = `${box.width} ${page.axis} ${page.isDark}`;
    if (!this.image || this.imageKey !== imageKey) {
      this.imageKey = imageKey;
      this.image = this.makeHeatMap(Math.round(box.width), scale);
    }
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image, box.left, box.top, box.width, box.height);
    const soft = page.colour("--soft");
    for (const i of [0, n - 1]) {
      const y = box.top + ((i + 0.5) / n) * box.height + 4;
      drawText(context, String(this.spectrum.frequencies[i]), box.left - 7, y, { colour: soft, align: "right" });
    }
    let free = -Infinity;
    for (const tick of scale.ticks(Math.round(box.width / 110))) {
      const text = formatInteger(tick);
      const x = box.left + scale.at(tick) * box.width;
      const half = 3.4 * text.length;
      if (x - half < free) continue;
      free = x + half + 6;
      const centre = clamp(x, half, width - half);
      drawText(context, text, centre, box.top + box.height + 15, { colour: soft, align: "center" });
    }
    drawText(context, "step", box.left + box.width, height - 3, { colour: soft, align: "right" });
    context.fillStyle = page.colour("--ink");
    context.fillRect(box.left + scale.at(step) * box.width - 0.75, box.top, 1.5, box.height);
  }

  // Return the heat map as a canvas with one row of pixels per frequency.
  makeHeatMap(width, scale) {
    const image = new ImageData(width, this.n);
    const [empty, full] = [this.page.rgb("--surface"), this.page.rgb("--c1")];
    for (let column = 0; column < width; column++) {
      const frame = nearestIndex(this.steps, scale.step((column + 0.5) / width));
      for (let i = 0; i < this.n; i++) {
        const share = (Math.max(0, this.value(frame, i)) / this.highest) ** BRIGHTNESS_EXPONENT;
        const at = 4 * (i * width + column);
        for (let channel = 0; channel < 3; channel++) {
          image.data[at + channel] = empty[channel] + share * (full[channel] - empty[channel]);
        }
        image.data[at + 3] = 255;
      }
    }
    const canvas = html("canvas", { width, height: this.n });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  describeHistory(x, y) {
    const box = this.historyBox(this.history.width, this.history.drawnHeight);
    const i = clamp(Math.floor(((y - box.top) / box.height) * this.n), 0, this.n - 1);
    const frame = nearestIndex(this.steps, this.stepAt(x));
    const name = `frequency ${this.spectrum.frequencies[i]} at step ${formatInteger(this.steps[frame])}`;
    return [name, this.format(this.value(frame, i))];
  }

  draw() {
    this.bars.draw();
    this.history.draw();
  }

  setStep(step) {
    this.bars.setStep(step);
    this.history.setStep(step);
  }
}
