// The Fourier spectrum, at one step and over the run.

class Spectrum {
  constructor(host, page, spectra) {
    Object.assign(this, { page, spectra });
    const [bars, history] = [html("div", { class: "picture" }), html("div", { class: "picture" })];
    this.note = html("p", { class: "key" });
    host.append(bars, history, this.note);
    this.bars = new Picture(bars, page, {
      label: "Fourier spectrum at this step",
      height: () => 190,
      draw: (...all) => this.drawBars(...all),
      tell: (x) => this.told(this.frequencyAt(x)),
    });
    this.history = new Picture(history, page, {
      label: "Fourier spectrum over the run: a row for each frequency",
      height: () => 150,
      draw: (...all) => this.drawHistory(...all),
      tell: (x, y) => this.toldHistory(x, y),
    });
    history.addEventListener("pointerdown", (event) => page.goTo(this.stepAt(event.offsetX)));
    this.choose(0);
  }

  choose(number) {
    const chosen = this.spectra[number];
    this.chosen = chosen;
    this.values = unpacked(chosen.values);
    this.steps = unpacked(chosen.steps);
    this.n = chosen.frequencies.length;
    this.isKey = new Set(chosen.key);
    this.highest = this.values.reduce((one, other) => Math.max(one, other), 0) || 1;
    this.image = null;
    this.shown = shownStep(this.page, "the bars were measured at", this.steps);
    this.note.replaceChildren(...(this.shown ? [this.shown.element] : []));
    this.bars.draw();
    this.history.draw();
  }

  value(frame, i) {
    return this.values[frame * this.n + i];
  }

  // Each frequency over the steps, as a curve.
  lines() {
    return this.chosen.frequencies.map((frequency, i) => ({ label: `k = ${frequency}`, steps: this.steps, values: Float32Array.from(this.steps, (_, frame) => this.value(frame, i)) }));
  }

  frequencyAt(x) {
    return clamped(Math.floor(((x - 46) / (this.bars.width - 56)) * this.n), 0, this.n - 1);
  }

  told(i) {
    const value = this.value(nearest(this.steps, this.page.step), i);
    const { frequencies, unit } = this.chosen;
    return [`frequency ${frequencies[i]}${this.isKey.has(frequencies[i]) ? " (key)" : ""}`, unit === "share" ? inPercent(value, 2) : written(value)];
  }

  drawBars(context, width, height, step) {
    const { page, n, chosen } = this;
    const frame = nearest(this.steps, step);
    if (this.shown) this.shown.setStep(step);
    const box = { left: 46, width: width - 56, top: 18, height: height - 50 };
    const bottom = box.top + box.height;
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => page.colour(name));
    for (const tick of roundTicks(0, this.highest, 3)) {
      const y = bottom - (tick / this.highest) * box.height;
      context.fillStyle = line;
      context.fillRect(box.left, y, box.width, 1);
      write(context, chosen.unit === "share" ? inPercent(tick, this.highest < 0.05 ? 1 : 0) : written(tick, 3), box.left - 7, y + 4, { colour: soft, align: "right" });
    }
    const slot = box.width / n;
    const thick = Math.max(1, slot * 0.7);
    let free = -Infinity;
    for (let i = 0; i < n; i++) {
      const high = (this.value(frame, i) / this.highest) * box.height;
      const x = box.left + (i + 0.5) * slot;
      const isKey = this.isKey.has(chosen.frequencies[i]);
      context.fillStyle = page.colour(isKey ? "--c1" : "--c0");
      context.fillRect(x - thick / 2, bottom - high, thick, high);
      if (isKey) write(context, String(chosen.frequencies[i]), x, bottom - high - 4, { colour: ink, align: "center", weight: 600 });
    }
    const every = [1, 2, 5, 10, 20, 50, 100, 200].find((one) => one * slot > 26) || n;
    for (let i = 0; i < n; i++) {
      const x = box.left + (i + 0.5) * slot;
      if (chosen.frequencies[i] % every || x < free) continue;
      write(context, String(chosen.frequencies[i]), x, bottom + 14, { colour: soft, align: "center" });
    }
    write(context, "frequency k", box.left + box.width, bottom + 28, { colour: soft, align: "right" });
  }

  box(width, height) {
    return { left: 46, width: width - 56, top: 4, height: height - 36 };
  }

  stepAt(x) {
    return this.page.stepScale().step((x - 46) / (this.history.width - 56));
  }

  drawHistory(context, width, height, step) {
    const { page, n } = this;
    const box = this.box(width, height);
    const x = page.stepScale();
    const look = `${box.width} ${page.axis} ${page.isDark}`;
    if (!this.image || this.look !== look) {
      this.look = look;
      this.image = this.painted(Math.round(box.width), x);
    }
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image, box.left, box.top, box.width, box.height);
    const soft = page.colour("--soft");
    for (const i of [0, n - 1]) write(context, String(this.chosen.frequencies[i]), box.left - 7, box.top + ((i + 0.5) / n) * box.height + 4, { colour: soft, align: "right" });
    let free = -Infinity;
    for (const tick of x.ticks(Math.round(box.width / 110))) {
      const at = box.left + x.at(tick) * box.width;
      const half = 3.4 * inSteps(tick).length;
      if (at - half < free) continue;
      free = at + half + 6;
      write(context, inSteps(tick), clamped(at, half, width - half), box.top + box.height + 15, { colour: soft, align: "center" });
    }
    write(context, "step", box.left + box.width, height - 3, { colour: soft, align: "right" });
    context.fillStyle = page.colour("--ink");
    context.fillRect(box.left + x.at(step) * box.width - 0.75, box.top, 1.5, box.height);
  }

  // A pixel a frequency high; the root of the value, nearly, so that what is faint is seen too.
  painted(width, x) {
    const image = new ImageData(width, this.n);
    const [from, to] = [this.page.rgb("--surface"), this.page.rgb("--c1")];
    for (let column = 0; column < width; column++) {
      const frame = nearest(this.steps, x.step((column + 0.5) / width));
      for (let i = 0; i < this.n; i++) {
        const share = (Math.max(0, this.value(frame, i)) / this.highest) ** 0.6;
        const at = 4 * (i * width + column);
        for (let channel = 0; channel < 3; channel++) image.data[at + channel] = from[channel] + share * (to[channel] - from[channel]);
        image.data[at + 3] = 255;
      }
    }
    const canvas = html("canvas", { width, height: this.n });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  toldHistory(x, y) {
    const box = this.box(this.history.width, this.history.high);
    const i = clamped(Math.floor(((y - box.top) / box.height) * this.n), 0, this.n - 1);
    const frame = nearest(this.steps, this.stepAt(x));
    const value = this.value(frame, i);
    return [`frequency ${this.chosen.frequencies[i]} at step ${inSteps(this.steps[frame])}`, this.chosen.unit === "share" ? inPercent(value, 2) : written(value)];
  }

  setStep(step) {
    this.bars.setStep(step);
    this.history.setStep(step);
  }
}
