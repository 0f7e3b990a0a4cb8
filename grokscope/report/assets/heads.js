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
      key.append(html("span", { class: "chip" }, sample(i), `to ${name}`));
    });
    // Beside the grid of a group, with no spectrum above them, few heads fill its height in one column.
    const n = this.nLayers * this.nHeads;
    const isColumn = !page.payload.spectra.length && n <= 5;
    const high = isColumn ? clamped(Math.round(560 / n) - 28, 104, 240) : 104;
    const grid = html("div", { class: isColumn ? "heads column" : "heads" });
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
          height: () => high,
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
    write(context, `a = ${page.nameOf(operands[0])}`, box.left, height - 4, { size: 10, colour: soft });
    write(context, page.nameOf(operands[nOperands - 1]), box.left + box.width, height - 4, { size: 10, colour: soft, align: "right" });
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
      `a = ${this.page.nameOf(this.attention.operands[j])}: ${[...this.byFirst.subarray(start, start + this.nPositions)].map((one) => inPercent(one, 0)).join(" · ")}`,
      ...this.attention.positions.map((name, i) => `to ${name} on average ${inPercent(this.mean[from + i], 1)} ± ${inPercent(2 * this.error[from + i], 1)}`),
    ];
  }

  setStep(step) {
    for (const picture of this.pictures) picture.setStep(step);
  }
}
