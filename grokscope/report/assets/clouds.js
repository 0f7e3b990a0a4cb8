// The embedding: its tokens as points in a plane, coloured and joined in the order of the circle.

import { Picture, drawText, hue } from "./canvas.js";
import { clamp, formatInteger, formatNumber, formatPercent, nearestIndex, unpack } from "./numbers.js";
import { html, svg } from "./elements.js";

const MAX_CLASSES_IN_LEGEND = 12;

// Return the corners of a marker: `radii` alternate, and `turn` is the share of a turn by which it is rotated.
function polygon(n, turn, ...radii) {
  return Array.from({ length: n }, (_, i) => {
    const [angle, radius] = [2 * Math.PI * (i / n + turn), radii[i % radii.length]];
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  });
}

const MARKERS = [
  polygon(24, 0, 1), polygon(4, 0.125, 1.2), polygon(3, 0, 1.4), polygon(4, 0, 1.35), polygon(3, 0.5, 1.4),
  polygon(8, 0.125, 1.5, 0.5), polygon(10, 0, 1.55, 0.65),
];
const marker = (kind) => MARKERS[kind % MARKERS.length];

// Return the first element and the size of each conjugacy class.
function summarizeClasses({ classes, labels }) {
  const summaries = [];
  classes.forEach((kind, j) => {
    summaries[kind] = summaries[kind] || { first: labels[j], size: 0 };
    summaries[kind].size++;
  });
  return summaries;
}

// Return the legend of the conjugacy classes, or only their number if they are many.
export function classLegend(clouds) {
  const summaries = summarizeClasses(clouds);
  if (summaries.length > MAX_CLASSES_IN_LEGEND) {
    const text = `${formatInteger(summaries.length)} conjugacy classes: point at an element to see its class`;
    return html("p", { class: "key" }, text);
  }
  const chips = summaries.map(({ first, size }, kind) => {
    const sample = svg("svg", { width: 12, height: 12, viewBox: "-1.7 -1.7 3.4 3.4", "aria-hidden": "true" });
    const points = marker(kind).map((corner) => corner.map((x) => x.toFixed(3)).join()).join(" ");
    sample.append(svg("polygon", { class: `c${kind % 8}`, points }));
    return html("span", { class: "chip" }, sample, `${first}: ${formatInteger(size)}`);
  });
  return html("div", { class: "readout classes" }, "conjugacy classes (an element of each: size):", ...chips);
}

export class Cloud {
  constructor(host, caption, page, clouds, plane, isLarge) {
    Object.assign(this, { caption, page, clouds, plane, isLarge });
    this.n = clouds.labels.length;
    this.points = unpack(plane.points);
    this.steps = unpack(clouds.steps);
    this.explained = unpack(plane.shares);
    this.arrange(plane.frequency);
    const fills = (isDark) => this.hues.map((share) => hue(share, isDark));
    this.fills = { true: fills(true), false: fills(false) };
    const isPrincipal = plane.kind === "principal";
    const name = isPrincipal ? "principal components 1 and 2" : `the plane of frequency ${plane.frequency}`;
    this.picture = new Picture(host, page, {
      label: `The embedding of ${this.n} tokens in ${name}`,
      height: (width) => width,
      paint: (...view) => this.paint(...view),
      describe: (x, y) => this.describe(x, y),
    });
  }

  // Set each token's hue, and the order in which a line joins the tokens.
  arrange(frequency) {
    const { n } = this;
    const { classes } = this.clouds;
    if (frequency) {
      // Tokens that the frequency turns by the same angle are neighbours.
      const angles = Array.from({ length: n }, (_, j) => (frequency * j) % n);
      this.hues = angles.map((angle) => angle / n);
      this.order = angles.map((_, j) => j).sort((i, j) => angles[i] - angles[j] || i - j);
      return;
    }
    this.classes = classes && summarizeClasses(this.clouds);
    this.hues = classes ? classes.map((kind) => kind / this.classes.length) : new Array(n).fill(0.7);
    this.order = null;
  }

  // Return a token's position on a canvas of this width.
  position(frame, j, width) {
    const at = 2 * (frame * this.n + j);
    const half = width / 2;
    const scale = (half - (this.isLarge ? 22 : 12)) / this.plane.limit;
    return [half + this.points[at] * scale, half - this.points[at + 1] * scale];
  }

  paint(context, width, height, step) {
    const frame = nearestIndex(this.steps, step);
    const { page, n, explained } = this;
    const positions = Array.from({ length: n }, (_, j) => this.position(frame, j, width));
    context.strokeStyle = page.colour("--line");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(width / 2, 6);
    context.lineTo(width / 2, height - 6);
    context.moveTo(6, height / 2);
    context.lineTo(width - 6, height / 2);
    context.stroke();
    if (this.order) {
      context.strokeStyle = page.colour("--faint");
      context.beginPath();
      for (const j of [...this.order, this.order[0]]) context.lineTo(...positions[j]);
      context.stroke();
    }
    const radius = this.isLarge ? 4 : clamp(width / 75, 1.8, 3);
    for (let j = 0; j < n; j++) {
      const [x, y] = positions[j];
      context.fillStyle = this.fill(j);
      context.beginPath();
      for (const [dx, dy] of marker(this.classes ? this.clouds.classes[j] : 0)) {
        context.lineTo(x + radius * dx, y + radius * dy);
      }
      context.fill();
    }
    if (page.labels) this.drawLabels(context, width, positions);
    if (explained) {
      const [first, second] = [explained[2 * frame], explained[2 * frame + 1] || 0];
      this.caption.textContent = `${formatPercent(first)} and ${formatPercent(second)} of the variance`;
    }
    this.frame = frame;
  }

  fill(j) {
    const { page, classes } = this;
    const hasLegend = classes && classes.length <= MAX_CLASSES_IN_LEGEND;
    return hasLegend ? page.colour(`--c${this.clouds.classes[j] % 8}`) : this.fills[page.isDark][j];
  }

  // Draw every label, or some of them evenly around the circle, without those that would overlap.
  drawLabels(context, width, positions) {
    const { page, n, isLarge, clouds } = this;
    const drawsAll = page.labels === "all";
    const stride = drawsAll ? 1 : Math.ceil(n / (isLarge && this.order ? 24 : 12));
    const order = this.order || positions.map((_, j) => j);
    const size = isLarge ? 10.5 : 9;
    const style = { size, colour: page.colour("--ink"), align: "center", baseline: "middle" };
    const offset = isLarge ? 11 : 9;
    const labels = [];
    for (let i = 0; i < n; i += stride) {
      const text = clouds.labels[order[i]];
      const [x, y] = positions[order[i]];
      const [dx, dy] = [x - width / 2, y - width / 2];
      const radius = Math.hypot(dx, dy) || 1;
      const label = { x: x + (offset * dx) / radius, y: y + (offset * dy) / radius, half: 0.31 * size * text.length };
      const overlaps = (drawn) =>
        Math.abs(drawn.x - label.x) < drawn.half + label.half && Math.abs(drawn.y - label.y) < size;
      if (!drawsAll && labels.some(overlaps)) continue;
      labels.push(label);
      drawText(context, text, label.x, label.y, style);
    }
  }

  describe(x, y) {
    if (this.frame === undefined) return null;
    let [nearest, least] = [-1, 14 ** 2];
    for (let j = 0; j < this.n; j++) {
      const [px, py] = this.position(this.frame, j, this.picture.width);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [nearest, least] = [j, distance];
    }
    if (nearest < 0) return null;
    const at = 2 * (this.frame * this.n + nearest);
    const rows = [`(${formatNumber(this.points[at], 4)}, ${formatNumber(this.points[at + 1], 4)})`];
    const label = this.clouds.labels[nearest];
    if (!this.classes) return [`token ${label}`, ...rows];
    const { first, size } = this.classes[this.clouds.classes[nearest]];
    const noun = size === 1 ? "element" : "elements";
    return [`element ${label}`, `conjugacy class of ${first}, ${formatInteger(size)} ${noun}`, ...rows];
  }
}
