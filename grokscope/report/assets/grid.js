// Every equation as a cell at (a, b): blue those trained on, vermillion those held out, the fuller the better known.

// Even a cell that is not known at all has this share of its colour.
const LEAST_FULL = 0.3;

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
    const [first, last] = [page.nameOf(0), page.nameOf(n - 1)];
    write(context, "a", this.box.left - 6, this.box.top + side / 2, { colour: soft, align: "right" });
    write(context, first, this.box.left, bottom + 15, { colour: soft });
    write(context, "b", this.box.left + side / 2, bottom + 15, { colour: soft, align: "center" });
    write(context, last, this.box.left + side, bottom + 15, { colour: soft, align: "right" });
    // Names of elements are too long for the margin, unless they climb it.
    const climb = Math.max(first.length, last.length) > 4;
    for (const [text, level, align] of [[first, this.box.top, "right"], [last, bottom, "left"]]) {
      context.save();
      context.translate(this.box.left - 6, climb ? level : clamped(level, this.box.top + 9, bottom));
      if (climb) context.rotate(-Math.PI / 2);
      write(context, text, 0, 0, { colour: soft, align: climb ? align : "right" });
      context.restore();
    }
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
      for (let channel = 0; channel < 3; channel++) image.data[at + channel] = empty[channel] + (LEAST_FULL + (1 - LEAST_FULL) * share) * (full[kind][channel] - empty[channel]);
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
    const { page } = this;
    const frame = nearest(this.steps, page.step);
    const loss = 10 ** this.logs[frame * this.nExamples + i];
    return [
      `a = ${page.nameOf(row)}; b = ${page.nameOf(column)}; answer ${page.nameOf(this.answers[i])}; ${this.isTrain[i] ? "trained on" : "held out"}`,
      `loss ≈ ${written(loss, 2)} nats, probability ≈ ${inPercent(Math.exp(-loss), 1)}, ${this.isRight(frame, i) ? "right" : "wrong"}`,
    ];
  }

  setStep(step) {
    this.picture.setStep(step);
  }
}
