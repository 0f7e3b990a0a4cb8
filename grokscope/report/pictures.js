// Pictures of one step: the Fourier spectrum, where the heads look, and the loss of every equation.

class Spectrum {
  constructor(host, page, spectra) {
    Object.assign(this, { page, spectra });
    const [bars, history] = [html("div", { class: "picture" }), html("div", { class: "picture" })];
    host.append(bars, history);
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
    this.bars.draw();
    this.history.draw();
  }

  value(frame, i) {
    return this.values[frame * this.n + i];
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

// Attention from the answer's position, a small plot for each head: a curve for each position over the first operand.
class Heads {
  constructor(host, page, attention) {
    Object.assign(this, { page, attention });
    this.byFirst = unpacked(attention.by_first);
    this.mean = unpacked(attention.mean);
    this.error = unpacked(attention.error);
    this.steps = unpacked(attention.steps);
    [, this.nLayers, this.nHeads, this.nOperands, this.nPositions] = this.byFirst.shape;
    this.pictures = [];
    const key = html("div", { class: "readout" });
    attention.positions.forEach((name, i) => {
      const sample = svg("svg", { width: 22, height: 8, "aria-hidden": "true" });
      sample.append(svg("line", { class: `line c${i}`, x1: 0, x2: 22, y1: 4, y2: 4, "stroke-dasharray": DASHES[i] }));
      key.append(html("span", { class: "chip" }, sample, `to ${name}`));
    });
    const grid = html("div", { class: "heads" });
    host.append(key, grid);
    for (let layer = 0; layer < this.nLayers; layer++) {
      for (let head = 0; head < this.nHeads; head++) {
        const name = this.nLayers > 1 ? `layer ${layer}, head ${head}` : `head ${head}`;
        const means = html("span");
        const figure = html("figure", {}, html("figcaption", {}, html("b", {}, name), means));
        const frame = figure.appendChild(html("div", { class: "picture" }));
        grid.append(figure);
        const picture = new Picture(frame, page, {
          label: `Attention of ${name} from the answer's position, over the first operand`,
          height: () => 104,
          draw: (...all) => this.draw(layer * this.nHeads + head, means, ...all),
          tell: (x) => this.tell(layer * this.nHeads + head, picture, x),
        });
        this.pictures.push(picture);
      }
    }
  }

  draw(number, means, context, width, height, step) {
    const frame = nearest(this.steps, step);
    const { page, nOperands, nPositions } = this;
    const box = { left: 26, width: width - 30, top: 6, height: height - 24 };
    const soft = page.colour("--soft");
    for (const tick of [0, 0.5, 1]) {
      const y = box.top + (1 - tick) * box.height;
      context.fillStyle = page.colour("--line");
      context.fillRect(box.left, y, box.width, 1);
      write(context, String(tick), box.left - 5, y + 4, { size: 10, colour: soft, align: "right" });
    }
    const { operands } = this.attention;
    write(context, `a = ${operands[0]}`, box.left, height - 4, { size: 10, colour: soft });
    write(context, String(operands[nOperands - 1]), box.left + box.width, height - 4, { size: 10, colour: soft, align: "right" });
    const start = (frame * this.nLayers * this.nHeads + number) * nOperands * nPositions;
    context.lineWidth = 1.5;
    for (let position = 0; position < nPositions; position++) {
      context.strokeStyle = page.colour(`--c${position}`);
      context.setLineDash(DASHES[position] ? DASHES[position].split(" ").map(Number) : []);
      context.beginPath();
      for (let j = 0; j < nOperands; j++) {
        const x = box.left + (nOperands > 1 ? j / (nOperands - 1) : 0.5) * box.width;
        const y = box.top + (1 - this.byFirst[start + j * nPositions + position]) * box.height;
        if (j) context.lineTo(x, y);
        else context.moveTo(x, y);
      }
      context.stroke();
    }
    context.setLineDash([]);
    const from = (frame * this.nLayers * this.nHeads + number) * nPositions;
    means.textContent = [...this.mean.subarray(from, from + nPositions)].map((one) => inPercent(one, 0)).join(" · ");
  }

  tell(number, picture, x) {
    const frame = nearest(this.steps, this.page.step);
    const j = clamped(Math.round(((x - 26) / (picture.width - 30)) * (this.nOperands - 1)), 0, this.nOperands - 1);
    const start = ((frame * this.nLayers * this.nHeads + number) * this.nOperands + j) * this.nPositions;
    const from = (frame * this.nLayers * this.nHeads + number) * this.nPositions;
    return [
      `a = ${this.attention.operands[j]}: ${[...this.byFirst.subarray(start, start + this.nPositions)].map((one) => inPercent(one, 0)).join(" · ")}`,
      ...this.attention.positions.map((name, i) => `to ${name} on average ${inPercent(this.mean[from + i], 1)} ± ${inPercent(2 * this.error[from + i], 1)}`),
    ];
  }

  setStep(step) {
    for (const picture of this.pictures) picture.setStep(step);
  }
}

// Every equation as a cell at (a, b): blue those trained on, vermillion those held out, the fuller the better known.
class Grid {
  constructor(host, page, grid) {
    Object.assign(this, { page, grid, mode: "probability" });
    this.logs = unpacked(grid.log_loss);
    this.right = unpacked(grid.right);
    this.operands = unpacked(grid.operands);
    this.answers = unpacked(grid.answers);
    this.isTrain = unpacked(grid.is_train);
    this.steps = unpacked(grid.steps);
    this.n = grid.n_elements;
    this.nExamples = this.isTrain.length;
    this.bytes = this.right.shape[1];
    this.cells = new Map();
    for (let i = 0; i < this.nExamples; i++) this.cells.set(this.operands[2 * i] * this.n + this.operands[2 * i + 1], i);
    this.small = html("canvas", { width: this.n, height: this.n });
    this.counts = html("p", { class: "key" });
    this.picture = new Picture(host, page, {
      label: "Every equation: how well each is known at this step",
      height: (width) => Math.min(width, 520) + 6,
      draw: (...all) => this.draw(...all),
      tell: (x, y) => this.tell(x, y),
    });
    host.append(this.counts);
  }

  isRight(frame, i) {
    return (this.right[frame * this.bytes + (i >> 3)] >> (i & 7)) & 1;
  }

  // How full a cell is: 1 for an answer that is certain and right.
  fullness(frame, i) {
    const log = this.logs[frame * this.nExamples + i];
    if (this.mode === "probability") return Math.exp(-(10 ** log));
    if (this.mode === "right") return this.isRight(frame, i);
    return clamped((2 - log) / 10, 0, 1);
  }

  draw(context, width, height, step) {
    const frame = nearest(this.steps, step);
    const { page, n } = this;
    const key = `${frame} ${this.mode} ${page.isDark}`;
    if (this.drawn !== key) this.paint(frame, key);
    const side = Math.min(width - 26, height - 26);
    this.box = { left: 26 + Math.max(0, (width - 26 - side) / 2), top: 2, side };
    context.imageSmoothingEnabled = side < n;
    context.drawImage(this.small, this.box.left, this.box.top, side, side);
    context.strokeStyle = page.colour("--line");
    context.strokeRect(this.box.left - 0.5, this.box.top - 0.5, side + 1, side + 1);
    const soft = page.colour("--soft");
    const bottom = this.box.top + side;
    write(context, "0", this.box.left - 6, this.box.top + 9, { colour: soft, align: "right" });
    write(context, String(n - 1), this.box.left - 6, bottom, { colour: soft, align: "right" });
    write(context, "a", this.box.left - 6, this.box.top + side / 2, { colour: soft, align: "right" });
    write(context, "0", this.box.left, bottom + 15, { colour: soft });
    write(context, "b", this.box.left + side / 2, bottom + 15, { colour: soft, align: "center" });
    write(context, String(n - 1), this.box.left + side, bottom + 15, { colour: soft, align: "right" });
  }

  paint(frame, key) {
    const image = new ImageData(this.n, this.n);
    const empty = this.page.rgb("--surface");
    const full = [this.page.rgb("--c1"), this.page.rgb("--c0")];
    const right = [0, 0];
    const count = [0, 0];
    for (let i = 0; i < this.nExamples; i++) {
      const kind = this.isTrain[i];
      const share = this.fullness(frame, i);
      const at = 4 * (this.operands[2 * i] * this.n + this.operands[2 * i + 1]);
      for (let channel = 0; channel < 3; channel++) image.data[at + channel] = empty[channel] + (0.06 + 0.94 * share) * (full[kind][channel] - empty[channel]);
      image.data[at + 3] = 255;
      right[kind] += this.isRight(frame, i);
      count[kind]++;
    }
    this.small.getContext("2d").putImageData(image, 0, 0);
    this.drawn = key;
    this.counts.textContent = `right at step ${inSteps(this.steps[frame])}: ${inSteps(right[1])} of ${inSteps(count[1])} trained on, ${inSteps(right[0])} of ${inSteps(count[0])} held out`;
  }

  choose(mode) {
    this.mode = mode;
    this.picture.draw();
  }

  tell(x, y) {
    if (!this.box) return null;
    const [column, row] = [x - this.box.left, y - this.box.top].map((one) => Math.floor((one / this.box.side) * this.n));
    const i = column >= 0 && column < this.n && row >= 0 ? this.cells.get(row * this.n + column) : undefined;
    if (i === undefined) return null;
    const frame = nearest(this.steps, this.page.step);
    const loss = 10 ** this.logs[frame * this.nExamples + i];
    return [
      `a = ${row}, b = ${column}, answer ${this.answers[i]}, ${this.isTrain[i] ? "trained on" : "held out"}`,
      `loss ≈ ${written(loss, 2)} nats, probability ≈ ${inPercent(Math.exp(-loss), 1)}, ${this.isRight(frame, i) ? "right" : "wrong"}`,
    ];
  }

  setStep(step) {
    this.picture.setStep(step);
  }
}
