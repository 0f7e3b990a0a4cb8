// Every equation as a cell at (a, b): train pairs in blue, test pairs in orange, fuller for a better prediction.

import { Picture, drawText } from "./canvas.js";
import { clamp, formatInteger, formatNumber, formatPercent, nearestIndex, unpack } from "./numbers.js";
import { html } from "./elements.js";

// The share of its colour that even a badly predicted cell has, so that train and test pairs always differ.
const LEAST_FULLNESS = 0.3;
const MARGIN = 26;
const LONGEST_HORIZONTAL_NAME = 4;

export class Grid {
  constructor(host, page, grid) {
    Object.assign(this, { page, mode: "probability" });
    this.logLoss = unpack(grid.log_loss);
    this.right = unpack(grid.right);
    this.operands = unpack(grid.operands);
    this.answers = unpack(grid.answers);
    // Null if the training set is unknown; then all pairs look like train pairs.
    this.isTrain = grid.is_train && unpack(grid.is_train);
    this.steps = unpack(grid.steps);
    this.n = grid.n_elements;
    this.nExamples = this.answers.length;
    this.bytesPerFrame = this.right.shape[1];
    this.cells = new Map();
    for (let i = 0; i < this.nExamples; i++) this.cells.set(this.cellOf(i), i);
    this.image = html("canvas", { width: this.n, height: this.n });
    this.counts = html("p", { class: "key" });
    this.picture = new Picture(host, page, {
      label: "Every equation: how well the model predicts its answer at this step",
      height: (width) => Math.min(width, 520) + 6,
      paint: (...view) => this.paint(...view),
      describe: (x, y) => this.describe(x, y),
    });
    host.append(this.counts);
  }

  // Return the number of an example's cell, row by row.
  cellOf(i) {
    return this.operands[2 * i] * this.n + this.operands[2 * i + 1];
  }

  isRight(frame, i) {
    return (this.right[frame * this.bytesPerFrame + (i >> 3)] >> (i & 7)) & 1;
  }

  // Return how full a cell is: 1 if the model is certain of the right answer.
  fullness(frame, i) {
    const logLoss = this.logLoss[frame * this.nExamples + i];
    if (this.mode === "probability") return Math.exp(-(10 ** logLoss));
    if (this.mode === "right") return this.isRight(frame, i);
    return clamp((2 - logLoss) / 10, 0, 1);
  }

  paint(context, width, height, step) {
    const frame = nearestIndex(this.steps, step);
    const { page, n } = this;
    const imageKey = `${frame} ${this.mode} ${page.isDark}`;
    if (this.imageKey !== imageKey) {
      this.imageKey = imageKey;
      this.paintCells(frame);
    }
    const side = Math.min(width - MARGIN, height - MARGIN);
    this.box = { left: MARGIN + Math.max(0, (width - MARGIN - side) / 2), top: 2, side };
    context.imageSmoothingEnabled = side < n;
    context.drawImage(this.image, this.box.left, this.box.top, side, side);
    context.strokeStyle = page.colour("--line");
    context.strokeRect(this.box.left - 0.5, this.box.top - 0.5, side + 1, side + 1);
    this.drawLabels(context);
  }

  drawLabels(context) {
    const { page, n } = this;
    const { left, top, side } = this.box;
    const colour = page.colour("--soft");
    const bottom = top + side;
    const [first, last] = [page.elementName(0), page.elementName(n - 1)];
    drawText(context, "a", left - 6, top + side / 2, { colour, align: "right" });
    drawText(context, first, left, bottom + 15, { colour });
    drawText(context, "b", left + side / 2, bottom + 15, { colour, align: "center" });
    drawText(context, last, left + side, bottom + 15, { colour, align: "right" });
    // A long name fits into the left margin only if it runs upwards.
    const isUpright = Math.max(first.length, last.length) > LONGEST_HORIZONTAL_NAME;
    for (const [text, y, align] of [[first, top, "right"], [last, bottom, "left"]]) {
      context.save();
      context.translate(left - 6, isUpright ? y : clamp(y, top + 9, bottom));
      if (isUpright) context.rotate(-Math.PI / 2);
      drawText(context, text, 0, 0, { colour, align: isUpright ? align : "right" });
      context.restore();
    }
  }

  // Paint one pixel per cell, and count the right answers.
  paintCells(frame) {
    const pixels = new ImageData(this.n, this.n);
    const empty = this.page.rgb("--surface");
    // By `isTrain`: the colours and counts of test and train pairs.
    const colours = [this.page.rgb("--c1"), this.page.rgb("--c0")];
    const [nRight, nPairs] = [[0, 0], [0, 0]];
    for (let i = 0; i < this.nExamples; i++) {
      const split = this.isTrain ? this.isTrain[i] : 1;
      const share = LEAST_FULLNESS + (1 - LEAST_FULLNESS) * this.fullness(frame, i);
      const at = 4 * this.cellOf(i);
      for (let channel = 0; channel < 3; channel++) {
        pixels.data[at + channel] = empty[channel] + share * (colours[split][channel] - empty[channel]);
      }
      pixels.data[at + 3] = 255;
      nRight[split] += this.isRight(frame, i);
      nPairs[split]++;
    }
    this.image.getContext("2d").putImageData(pixels, 0, 0);
    const count = (split) => `${formatInteger(nRight[split])} of ${formatInteger(nPairs[split])}`;
    const step = formatInteger(this.steps[frame]);
    const counts = this.isTrain ? `${count(1)} train pairs, ${count(0)} test pairs` : `${count(1)} pairs`;
    this.counts.textContent = `correct at step ${step}: ${counts}`;
  }

  choose(mode) {
    this.mode = mode;
    this.picture.draw();
  }

  describe(x, y) {
    if (!this.box) return null;
    const cell = (distance) => Math.floor((distance / this.box.side) * this.n);
    const [column, row] = [cell(x - this.box.left), cell(y - this.box.top)];
    const isInside = column >= 0 && column < this.n && row >= 0;
    const i = isInside ? this.cells.get(row * this.n + column) : undefined;
    if (i === undefined) return null;
    const frame = nearestIndex(this.steps, this.page.step);
    const loss = 10 ** this.logLoss[frame * this.nExamples + i];
    const [a, b, answer] = [row, column, this.answers[i]].map((element) => this.page.elementName(element));
    const split = this.isTrain ? `; ${this.isTrain[i] ? "train" : "test"} pair` : "";
    const probability = formatPercent(Math.exp(-loss), 1);
    const verdict = this.isRight(frame, i) ? "correct" : "wrong";
    return [
      `a = ${a}; b = ${b}; answer ${answer}${split}`,
      `${this.page.payload.loss} loss ≈ ${formatNumber(loss, 2)} nats, probability ≈ ${probability}, ${verdict}`,
    ];
  }

  draw() {
    this.picture.draw();
  }

  setStep(step) {
    this.picture.setStep(step);
  }
}
