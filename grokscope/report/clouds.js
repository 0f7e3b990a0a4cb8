// The embedding: points in their planes, coloured and joined in the order of the circle.

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
      const classes = clouds.classes;
      const n = classes ? Math.max(...classes) + 1 : 1;
      this.shares = classes ? classes.map((one) => one / n) : new Array(this.n).fill(0.7);
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
    const { page, n, large } = this;
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
    const fill = this.fill[page.isDark];
    const radius = large ? 4 : clamped(width / 75, 1.8, 3);
    for (let j = 0; j < n; j++) {
      context.fillStyle = fill[j];
      context.beginPath();
      context.arc(places[j][0], places[j][1], radius, 0, 2 * Math.PI);
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
    const kind = this.clouds.classes ? [`conjugacy class ${this.clouds.classes[best] + 1}`] : [];
    return [`${this.clouds.classes ? "element" : "token"} ${this.clouds.labels[best]}`, ...kind, `(${written(this.points[at], 4)}, ${written(this.points[at + 1], 4)})`];
  }
}
