// The embedding: points in their planes, coloured and joined in the order of the circle.

const MOST_IN_LEGEND = 12;

// The corners of each marker, about a circle of radius 1.
const corners = (n, turn, radius) => Array.from({ length: n }, (_, i) => [i / n + turn, typeof radius === "number" ? radius : radius[i % 2]]).map(([part, far]) => [far * Math.sin(2 * Math.PI * part), -far * Math.cos(2 * Math.PI * part)]);
const MARKERS = [corners(24, 0, 1), corners(4, 0.125, 1.2), corners(3, 0, 1.4), corners(4, 0, 1.35), corners(3, 0.5, 1.4), corners(8, 0.125, [1.5, 0.5]), corners(10, 0, [1.55, 0.65])];
const marker = (kind) => MARKERS[kind % MARKERS.length];

// The conjugacy classes of a group with the first element and the size of each.
function classesOf({ classes, labels }) {
  const found = [];
  classes.forEach((one, j) => {
    found[one] = found[one] || { first: labels[j], size: 0 };
    found[one].size++;
  });
  return found;
}

const inElements = (size) => `${inSteps(size)} element${size === 1 ? "" : "s"}`;

// How the points of each class look, if there are not too many of them.
function classLegend(clouds) {
  const classes = classesOf(clouds);
  if (classes.length > MOST_IN_LEGEND) return html("p", { class: "key" }, `${inSteps(classes.length)} conjugacy classes: the pointer tells which`);
  return html("div", { class: "readout classes" }, "conjugacy classes by an element, with their sizes:", ...classes.map(({ first, size }, kind) => {
    const sample = svg("svg", { width: 12, height: 12, viewBox: "-1.7 -1.7 3.4 3.4", "aria-hidden": "true" });
    sample.append(svg("polygon", { class: `c${kind % 8}`, points: marker(kind).map((one) => one.map((at) => at.toFixed(3)).join()).join(" ") }));
    return html("span", { class: "chip" }, sample, `${first}: ${inSteps(size)}`);
  }));
}

class Cloud {
  constructor(host, caption, page, clouds, plane, large) {
    Object.assign(this, { caption, page, clouds, plane, large });
    this.n = clouds.labels.length;
    this.points = unpacked(plane.points);
    this.steps = unpacked(clouds.steps);
    const k = plane.frequency;
    if (k) {
      // Positions that the frequency turns by the same angle lie together.
      const angles = Array.from({ length: this.n }, (_, j) => (k * j) % this.n);
      this.shares = angles.map((angle) => angle / this.n);
      this.order = angles.map((_, j) => j).sort((one, other) => angles[one] - angles[other] || one - other);
    } else {
      this.classes = clouds.classes && classesOf(clouds);
      this.shares = clouds.classes ? clouds.classes.map((one) => one / this.classes.length) : new Array(this.n).fill(0.7);
      this.order = null;
    }
    this.fill = { true: this.shares.map((one) => hue(one, true)), false: this.shares.map((one) => hue(one, false)) };
    this.parts = unpacked(plane.shares);
    const what = plane.kind === "principal" ? "principal components 1 and 2" : `the plane of frequency ${k}`;
    this.picture = new Picture(host, page, {
      label: `The embedding of ${this.n} tokens in ${what}`,
      height: (width) => width,
      draw: (...all) => this.draw(...all),
      tell: (x, y) => this.tell(x, y),
    });
  }

  place(frame, j, width) {
    const at = 2 * (frame * this.n + j);
    const half = width / 2;
    const scale = (half - (this.large ? 22 : 12)) / this.plane.limit;
    return [half + this.points[at] * scale, half - this.points[at + 1] * scale];
  }

  draw(context, width, height, step) {
    const frame = nearest(this.steps, step);
    const { page, n, large, clouds } = this;
    const places = Array.from({ length: n }, (_, j) => this.place(frame, j, width));
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
      [...this.order, this.order[0]].forEach((j, i) => (i ? context.lineTo(...places[j]) : context.moveTo(...places[j])));
      context.stroke();
    }
    const radius = large ? 4 : clamped(width / 75, 1.8, 3);
    for (let j = 0; j < n; j++) {
      const kind = this.classes ? clouds.classes[j] : 0;
      context.fillStyle = this.classes && this.classes.length <= MOST_IN_LEGEND ? page.colour(`--c${kind % 8}`) : this.fill[page.isDark][j];
      context.beginPath();
      for (const [x, y] of marker(kind)) context.lineTo(places[j][0] + radius * x, places[j][1] + radius * y);
      context.fill();
    }
    if (page.labels) this.drawLabels(context, width, places);
    if (this.parts) this.caption.textContent = `${inPercent(this.parts[2 * frame])} and ${inPercent(this.parts[2 * frame + 1] || 0)} of the variance`;
    this.frame = frame;
  }

  // Every label; or some, evenly round the circle, but for those that would touch another.
  drawLabels(context, width, places) {
    const { page, n, large, clouds } = this;
    const isAll = page.labels === "all";
    const every = isAll ? 1 : Math.ceil(n / (large && this.order ? 24 : 12));
    const along = this.order || places.map((_, j) => j);
    const size = large ? 10.5 : 9;
    const how = { size, colour: page.colour("--ink"), align: "center", baseline: "middle" };
    const taken = [];
    for (let i = 0; i < n; i += every) {
      const text = clouds.labels[along[i]];
      const [x, y] = places[along[i]];
      const [dx, dy] = [x - width / 2, y - width / 2];
      const far = Math.hypot(dx, dy) || 1;
      const away = large ? 11 : 9;
      const [at, level, half] = [x + (away * dx) / far, y + (away * dy) / far, 0.31 * size * text.length];
      if (!isAll && taken.some((one) => Math.abs(one.at - at) < one.half + half && Math.abs(one.level - level) < size)) continue;
      taken.push({ at, level, half });
      write(context, text, at, level, how);
    }
  }

  tell(x, y) {
    if (this.frame === undefined) return null;
    let [best, least] = [-1, 14 ** 2];
    for (let j = 0; j < this.n; j++) {
      const [px, py] = this.place(this.frame, j, this.picture.width);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [j, distance];
    }
    if (best < 0) return null;
    const at = 2 * (this.frame * this.n + best);
    const own = this.classes && this.classes[this.clouds.classes[best]];
    const kind = own ? [`conjugacy class of ${own.first}, ${inElements(own.size)}`] : [];
    return [`${own ? "element" : "token"} ${this.clouds.labels[best]}`, ...kind, `(${written(this.points[at], 4)}, ${written(this.points[at + 1], 4)})`];
  }
}
