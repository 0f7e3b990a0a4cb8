// Attention from the answer position: one small plot per head, one curve per position, over the first operand.

import { DASHES, html, lineSample } from "./elements.js";
import { Picture, drawText } from "./canvas.js";
import { clamp, formatPercent, nearestIndex, unpack } from "./numbers.js";

const [LEFT, RIGHT, HEIGHT] = [26, 4, 104];
// The height that a column of heads fills next to the grid of every equation.
const COLUMN_HEIGHT = 560;
const MAX_HEADS_IN_COLUMN = 5;

export class Heads {
  constructor(host, page, attention) {
    Object.assign(this, { page, attention });
    this.byFirst = unpack(attention.by_first);
    this.mean = unpack(attention.mean);
    this.error = unpack(attention.error);
    this.steps = unpack(attention.steps);
    [, this.nLayers, this.nHeads, this.nOperands, this.nPositions] = this.byFirst.shape;
    const chips = attention.positions.map((name, i) => html("span", { class: "chip" }, lineSample(i), `to ${name}`));
    const n = this.nLayers * this.nHeads;
    // Without a spectrum above them, a few heads stand in one column as high as the grid.
    const isColumn = !page.payload.spectra.length && n <= MAX_HEADS_IN_COLUMN;
    const height = isColumn ? clamp(Math.round(COLUMN_HEIGHT / n) - 28, HEIGHT, 240) : HEIGHT;
    const grid = html("div", { class: isColumn ? "heads column" : "heads" });
    host.append(html("div", { class: "readout" }, ...chips), grid);
    this.pictures = Array.from({ length: n }, (_, head) => this.addHead(grid, head, height));
  }

  // Add the plot of one head; `head` counts through all layers.
  addHead(grid, head, height) {
    const layer = Math.floor(head / this.nHeads);
    const name = this.nLayers > 1 ? `layer ${layer}, head ${head % this.nHeads}` : `head ${head}`;
    const means = html("span");
    const frame = html("div", { class: "picture" });
    grid.append(html("figure", {}, html("figcaption", {}, html("b", {}, name), means), frame));
    const picture = new Picture(frame, this.page, {
      label: `Attention of ${name} from the answer position, over the first operand`,
      height: () => height,
      paint: (...view) => this.paint(head, means, ...view),
      describe: (x) => this.describe(head, picture, x),
    });
    return picture;
  }

  // Return the index of a head's first value in an array over frames and heads with `size` values each.
  offset(frame, head, size) {
    return (frame * this.nLayers * this.nHeads + head) * size;
  }

  paint(head, means, context, width, height, step) {
    const frame = nearestIndex(this.steps, step);
    const { page, nOperands, nPositions } = this;
    const box = { left: LEFT, width: width - LEFT - RIGHT, top: 6, height: height - 24 };
    const right = box.left + box.width;
    const style = { size: 10, colour: page.colour("--soft") };
    for (const tick of [0, 0.5, 1]) {
      const y = box.top + (1 - tick) * box.height;
      context.fillStyle = page.colour("--line");
      context.fillRect(box.left, y, box.width, 1);
      drawText(context, String(tick), box.left - 5, y + 4, { ...style, align: "right" });
    }
    const names = this.attention.operands.map((operand) => page.elementName(operand));
    drawText(context, `a = ${names[0]}`, box.left, height - 4, style);
    drawText(context, names[nOperands - 1], right, height - 4, { ...style, align: "right" });
    const start = this.offset(frame, head, nOperands * nPositions);
    context.lineWidth = 1.5;
    for (let position = 0; position < nPositions; position++) {
      context.strokeStyle = page.colour(`--c${position}`);
      context.setLineDash(DASHES[position] ? DASHES[position].split(" ").map(Number) : []);
      context.beginPath();
      for (let j = 0; j < nOperands; j++) {
        const x = box.left + (nOperands > 1 ? j / (nOperands - 1) : 0.5) * box.width;
        context.lineTo(x, box.top + (1 - this.byFirst[start + j * nPositions + position]) * box.height);
      }
      context.stroke();
    }
    context.setLineDash([]);
    const from = this.offset(frame, head, nPositions);
    means.textContent = this.formatShares(this.mean.subarray(from, from + nPositions));
  }

  formatShares(shares) {
    return Array.from(shares, (share) => formatPercent(share, 0)).join(" · ");
  }

  describe(head, picture, x) {
    const { attention, nOperands, nPositions } = this;
    const frame = nearestIndex(this.steps, this.page.step);
    const share = (x - LEFT) / (picture.width - LEFT - RIGHT);
    const j = clamp(Math.round(share * (nOperands - 1)), 0, nOperands - 1);
    const start = this.offset(frame, head, nOperands * nPositions) + j * nPositions;
    const from = this.offset(frame, head, nPositions);
    const shares = this.formatShares(this.byFirst.subarray(start, start + nPositions));
    return [
      `a = ${this.page.elementName(attention.operands[j])}: ${shares}`,
      ...attention.positions.map((name, i) => {
        const [mean, error] = [this.mean[from + i], 2 * this.error[from + i]];
        return `mean to ${name}: ${formatPercent(mean, 1)} ± ${formatPercent(error, 1)}`;
      }),
    ];
  }

  draw() {
    for (const picture of this.pictures) picture.draw();
  }

  setStep(step) {
    for (const picture of this.pictures) picture.setStep(step);
  }
}
