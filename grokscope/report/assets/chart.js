// Curves over the steps, as SVG: bands, controls, stages behind them, a cursor, and what the pointer is at.

class Chart {
  // `spec`: lines, kind ("linear" or "log"), unit, percent, height, named (whether stages bear their names), label.
  constructor(host, spec, page) {
    Object.assign(this, { host, spec, page, number: nCharts++ });
    this.readout = host.appendChild(html("div", { class: "readout" }));
    this.frame = host.appendChild(html("div", { class: "frame" }));
    this.notes = host.appendChild(html("p", { class: "key" }));
    this.width = 0;
    page.watchSize(this.frame, () => this.draw());
    this.listen();
  }

  change(spec) {
    Object.assign(this.spec, spec);
    this.draw();
  }

  draw() {
    const width = Math.round(this.frame.clientWidth);
    if (width < 40) return;
    const { spec, page } = this;
    const height = spec.height || 220;
    const longest = Math.max(...spec.lines.map((line) => line.label.length));
    // Names at the ends of the curves, unless they take the room of the curves.
    const labelled = width > 460 && spec.lines.length > 1 && spec.lines.length <= 10 && longest <= 25;
    const margin = { left: 50, right: labelled ? 18 + 6.7 * longest : 14, top: spec.named || spec.unit ? 22 : 8, bottom: 34 };
    this.box = { ...margin, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom, whole: width };
    this.x = page.stepScale();
    this.y = this.valueScale();
    const chart = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": this.described() });
    drawStages(this, chart);
    this.drawAxes(chart);
    const clip = svg("clipPath", { id: `clip-${this.number}` });
    clip.append(svg("rect", { x: margin.left, y: margin.top - 2, width: this.box.width + 1, height: this.box.height + 4 }));
    const plot = svg("g", { "clip-path": `url(#clip-${this.number})` });
    spec.lines.forEach((line, i) => this.drawLine(plot, line, i));
    chart.append(clip, plot);
    if (labelled) this.drawLabels(chart);
    this.cursor = svg("line", { class: "cursor", y1: margin.top, y2: height - margin.bottom });
    this.pointer = svg("line", { class: "pointer", y1: margin.top, y2: height - margin.bottom, visibility: "hidden" });
    this.dots = spec.lines.map((line, i) => svg("circle", { class: `dot c${i % 8}`, r: 3.5 }));
    chart.append(this.pointer, this.cursor, ...this.dots);
    this.frame.replaceChildren(chart);
    this.chart = chart;
    this.fillReadout();
    this.setStep(page.step);
  }

  described() {
    const names = this.spec.lines.map((line) => line.label).join(", ");
    return `${this.spec.label}: ${names} over the steps. A table of the values is below.`;
  }

  px(step) {
    return this.box.left + this.x.at(step) * this.box.width;
  }

  py(value) {
    return this.box.top + (1 - this.y.at(value)) * this.box.height;
  }

  valueScale() {
    const { spec } = this;
    if (spec.percent) return valueScale("linear", -0.03, 1.03);
    let [low, high] = [Infinity, -Infinity];
    const isLog = spec.kind === "log";
    const take = (value) => {
      if (Number.isFinite(value) && (!isLog || value > 0)) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    };
    for (const line of spec.lines) {
      line.values.forEach(take);
      if (line.shuffled) line.shuffled.forEach(take);
      if (line.untrained !== undefined) take(line.untrained);
    }
    if (low === Infinity) return valueScale("linear", 0, 1);
    if (isLog) return valueScale("log", low / 1.3, high * 1.3);
    if (low > 0 && low < 0.5 * high) low = 0;
    const pad = (high - low || Math.abs(high) || 1) * 0.04;
    return valueScale("linear", low === 0 ? 0 : low - pad, high + pad);
  }

  drawAxes(chart) {
    const { box, spec } = this;
    const [right, bottom] = [box.left + box.width, box.top + box.height];
    const axes = svg("g", { class: "axes" });
    const ticks = this.y.ticks(Math.max(2, Math.round(box.height / 38)));
    // Powers of ten stand as such where one of them would have to.
    const inPowers = spec.kind === "log" && !spec.percent && ticks.every((tick) => Number.isInteger(Math.log10(tick))) && ticks.some((tick) => tick < 1e-2 || tick > 1e4);
    for (const tick of ticks) {
      const y = this.py(tick);
      if (!(y >= box.top - 1 && y <= bottom + 1)) continue;
      axes.append(svg("line", { class: "grid", x1: box.left, x2: right, y1: y, y2: y }));
      const text = spec.percent ? inPercent(tick, 0) : inPowers ? (tick === 1 ? "1" : `10${raised(Math.round(Math.log10(tick)))}`) : written(tick, 3);
      axes.append(svg("text", { x: box.left - 7, y: y + 3.5, "text-anchor": "end" }, text));
    }
    axes.append(svg("line", { class: "axis", x1: box.left, x2: right, y1: bottom, y2: bottom }));
    for (const tick of this.x.minor()) axes.append(svg("line", { class: "axis", x1: this.px(tick), x2: this.px(tick), y1: bottom, y2: bottom + 2.5 }));
    let free = -Infinity;
    for (const tick of this.x.ticks(Math.max(2, Math.round(box.width / 110)))) {
      const [x, text] = [this.px(tick), inSteps(tick)];
      axes.append(svg("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 5 }));
      const half = 3.4 * text.length;
      if (x - half < free) continue;
      free = x + half + 6;
      axes.append(svg("text", { x: clamped(x, half, box.whole - half), y: bottom + 17, "text-anchor": "middle" }, text));
    }
    axes.append(svg("text", { class: "axis-title", x: right, y: bottom + 30, "text-anchor": "end" }, "step"));
    if (spec.unit) axes.append(svg("text", { class: "axis-title", x: 0, y: 12 }, spec.unit));
    chart.append(axes);
  }

  drawLine(plot, line, i) {
    const colour = `c${i % 8}`;
    const bottom = this.box.top + this.box.height + 4;
    const [low, high] = line.low ? [line.low, line.high] : line.spread ? [0, 1].map((up) => line.values.map((value, j) => value + (up ? 1 : -1) * line.spread[j])) : [];
    if (low) {
      const place = (value) => {
        const y = this.py(value);
        return Number.isNaN(y) ? bottom : y;
      };
      const upper = [];
      const lower = [];
      line.values.forEach((value, j) => {
        if (Number.isNaN(value)) return;
        const x = this.px(line.steps[j]).toFixed(1);
        upper.push(`${x},${place(high[j]).toFixed(1)}`);
        lower.push(`${x},${place(low[j]).toFixed(1)}`);
      });
      plot.append(svg("path", { class: `band ${colour}`, d: `M${upper.join("L")}L${lower.reverse().join("L")}Z` }));
    }
    if (line.untrained !== undefined && Number.isFinite(this.py(line.untrained))) {
      const y = this.py(line.untrained);
      plot.append(svg("line", { class: `untrained ${colour}`, x1: this.box.left, x2: this.box.left + this.box.width, y1: y, y2: y }));
    }
    if (line.shuffled) plot.append(svg("path", { class: `shuffled ${colour}`, d: this.path(line, line.shuffled) }));
    const dash = DASHES[i % DASHES.length];
    plot.append(svg("path", { class: `line ${colour}`, d: this.path(line, line.values), ...(dash && { "stroke-dasharray": dash }) }));
    if (line.steps.length < 40) {
      line.values.forEach((value, j) => {
        const y = this.py(value);
        if (Number.isFinite(y)) plot.append(svg("circle", { class: `point ${colour}`, cx: this.px(line.steps[j]), cy: y, r: 2 }));
      });
    }
  }

  // Where points are denser than pixels, of each pixel's column the first, the lowest, the highest and the last.
  path(line, values) {
    const { steps } = line;
    const gaps = line.gaps || [];
    const crowded = values.length > 2 * this.box.width;
    let [path, pen, column, kept, gap] = ["", "M", NaN, [], 0];
    const flush = () => {
      if (!kept.length) return;
      const ys = kept.map(([, y]) => y);
      const [low, high] = [ys.indexOf(Math.min(...ys)), ys.indexOf(Math.max(...ys))];
      for (const j of [...new Set([0, Math.min(low, high), Math.max(low, high), kept.length - 1])]) {
        path += `${pen}${kept[j][0].toFixed(1)},${kept[j][1].toFixed(1)}`;
        pen = "L";
      }
      kept = [];
    };
    for (let j = 0; j < values.length; j++) {
      while (gap < gaps.length && steps[j] > gaps[gap][0]) {
        flush();
        pen = "M";
        gap++;
      }
      const [x, y] = [this.px(steps[j]), this.py(values[j])];
      if (!Number.isFinite(y)) {
        flush();
        pen = "M";
        continue;
      }
      if (!crowded || Math.round(x) !== column) flush();
      column = Math.round(x);
      kept.push([x, y]);
    }
    flush();
    return path;
  }

  // Names at the ends of the curves, moved apart where they would touch.
  drawLabels(chart) {
    const places = this.spec.lines.map((line, i) => {
      let j = line.values.length - 1;
      while (j > 0 && !Number.isFinite(this.py(line.values[j]))) j--;
      return { i, text: line.label, y: clamped(this.py(line.values[j]), this.box.top, this.box.top + this.box.height) };
    }).filter((one) => Number.isFinite(one.y)).sort((one, other) => one.y - other.y);
    for (let j = 1; j < places.length; j++) places[j].y = Math.max(places[j].y, places[j - 1].y + 13);
    let floor = this.box.top + this.box.height + 3;
    for (let j = places.length - 1; j >= 0; j--) {
      places[j].y = Math.min(places[j].y, floor);
      floor = places[j].y - 13;
    }
    const x = this.box.left + this.box.width + 7;
    for (const { i, text, y } of places) chart.append(svg("text", { class: `name c${i % 8}`, x, y: y + 3.5 }, text));
  }

  fillReadout() {
    this.figures = this.spec.lines.map((line, i) => {
      const figure = html("b");
      const chip = html("span", { class: "chip" }, sample(i), `${line.label} `, figure);
      return { chip, figure };
    });
    this.readout.replaceChildren(...this.figures.map((one) => one.chip));
    const { lines } = this.spec;
    // Once for all curves, or for each of them where they were not measured together.
    const together = lines.every((line) => String(line.steps) === String(lines[0].steps));
    this.shown = (together ? lines.slice(0, 1) : lines).map((line, i) => {
      const shown = shownStep(this.page, "measured at", line.steps);
      if (shown) (together ? this.readout : this.figures[i].chip).append(shown.element);
      return shown;
    }).filter(Boolean);
    const said = [];
    if (lines.some((line) => line.low)) said.push("line: median over the seeds, band: all of them");
    if (lines.some((line) => line.spread && !line.isResidual)) said.push("band: ± 2 standard errors");
    if (lines.some((line) => line.isResidual)) said.push("band: ± the residual");
    if (lines.some((line) => line.shuffled)) said.push("dotted: the same with the tokens shuffled");
    if (lines.some((line) => line.untrained !== undefined)) said.push("thin level line: the untrained model");
    const counts = [...new Set(lines.map((line) => line.steps.length))];
    if (this.spec.counted) said.unshift(`measured at ${counts.map(inSteps).join(" and ")} checkpoints`);
    this.notes.textContent = said.join(" · ");
    this.notes.hidden = !said.length;
  }

  say(value) {
    return this.spec.percent ? inPercent(value, 2) : written(value, 4);
  }

  setStep(step) {
    if (!this.chart) return;
    const x = this.px(step);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.spec.lines.forEach((line, i) => {
      const j = nearest(line.steps, step);
      const y = this.py(line.values[j]);
      const dot = this.dots[i];
      dot.setAttribute("cx", this.px(line.steps[j]));
      dot.setAttribute("cy", Number.isFinite(y) ? y : -99);
      this.figures[i].figure.textContent = this.say(line.values[j]);
    });
    for (const shown of this.shown) shown.setStep(step);
  }

  listen() {
    const stepOf = (event) => {
      const left = this.chart.getBoundingClientRect().left;
      return this.x.step((event.clientX - left - this.box.left) / this.box.width);
    };
    this.frame.addEventListener("pointerdown", (event) => {
      if (!this.chart || event.button) return;
      // A finger may still scroll the page; a mouse drags the cursor.
      if (event.pointerType === "mouse") this.frame.setPointerCapture(event.pointerId);
      this.dragging = true;
      this.page.goTo(stepOf(event));
    });
    for (const name of ["pointerup", "pointercancel"]) this.frame.addEventListener(name, () => { this.dragging = false; });
    this.frame.addEventListener("pointermove", (event) => {
      if (!this.chart) return;
      const step = stepOf(event);
      if (this.dragging) this.page.goTo(step);
      const j = nearest(this.spec.lines[0].steps, step);
      const at = this.spec.lines[0].steps[j];
      for (const key of ["x1", "x2"]) this.pointer.setAttribute(key, this.px(at));
      this.pointer.setAttribute("visibility", "visible");
      const rows = this.spec.lines.map((line) => this.told(line, nearest(line.steps, step)));
      this.page.tip(event, [`step ${inSteps(at)}`, ...rows]);
    });
    this.frame.addEventListener("pointerleave", () => {
      if (this.pointer) this.pointer.setAttribute("visibility", "hidden");
      this.page.tip(null);
    });
  }

  told(line, j) {
    const at = line.steps[j] === this.spec.lines[0].steps[j] ? "" : ` (step ${inSteps(line.steps[j])})`;
    const spread = line.spread ? ` ± ${written(line.spread[j], 2)}` : "";
    const shuffled = line.shuffled ? `, shuffled ${this.say(line.shuffled[j])}` : "";
    return `${line.label} ${this.say(line.values[j])}${spread}${shuffled}${at}`;
  }
}
