// The page of several runs: curves beside each other, the phase diagram, and the table that sorts.

const MOST_DRAWN = 8;
const LONGEST_LABEL = 25;
const PHASES = { comprehension: "C", grokking: "G", memorization: "M", confusion: "X" };

class Comparison extends Sheet {
  constructor(payload) {
    super(payload);
    this.runs = payload.runs;
    this.axes = payload.axes;
    this.stages = [];
    this.gaps = [];
    this.align = "step";
    this.seeds = "band";
    this.panels = [];
    this.groups = this.grouped();
    // Of many settings some, evenly over their order.
    const every = Math.max(1, this.groups.size / MOST_DRAWN);
    this.drawn = new Set([...this.groups.values()].filter((_, i) => Math.floor(i / every) !== Math.floor((i - 1) / every)).flat());
    this.reach();
    this.step = this.last;
  }

  // Runs that differ in their seeds alone, by what the others differ in.
  grouped() {
    const by = this.axes.filter((name) => name !== "seed");
    const groups = new Map();
    for (const run of this.runs) {
      const said = by.filter((name) => name in run.settings).map((name) => `${name.split(".").pop().replaceAll("_", " ")} ${run.settings[name]}`);
      const label = this.axes.length ? said.join(", ") : run.name;
      groups.set(label, [...(groups.get(label) || []), run]);
    }
    return groups;
  }

  // A curve bears its run's name where no two runs share their settings, or where these would take many letters.
  called(run, label, members) {
    const isLong = [...this.groups.keys()].some((one) => one.length > LONGEST_LABEL);
    if (isLong || this.groups.size === this.runs.length) return run.name;
    return members.length > 1 ? [label, `seed ${run.settings.seed}`].filter(Boolean).join(", ") : label;
  }

  // How far before or after its own event a run's steps lie; null where it has none.
  shift(run) {
    return this.align === "step" ? 0 : run[this.align];
  }

  reach() {
    const ends = this.runs.filter((run) => this.shift(run) !== null).map((run) => {
      const steps = unpacked(run.curves["log.test_loss"].steps);
      return [steps[0] - this.shift(run), steps[steps.length - 1] - this.shift(run)];
    });
    this.first = Math.min(0, ...ends.map(([first]) => first));
    this.last = Math.max(1, ...ends.map(([, last]) => last));
  }

  // There is no logarithm of the steps before an event.
  stepScale() {
    return stepScale(this.align === "step" ? this.axis : "linear", this.first, this.last);
  }

  goTo(step) {
    this.step = clamped(Math.round(step), this.first, this.last);
    for (const one of this.panels) one.chart.setStep(this.step);
  }

  redraw() {
    this.forgetColours();
    for (const one of this.panels) one.update();
    this.say();
  }

  // What the curves are counted from, and whether they are all there.
  say() {
    const without = this.runs.filter((run) => this.shift(run) === null).length;
    const event = document.getElementById("align").selectedOptions[0].textContent;
    document.getElementById("aligned").textContent = [
      ...(this.align === "step" ? [] : [`step 0 is each run’s ${event}`]),
      ...(without ? [`${inSteps(without)} runs never had it and are left out`] : []),
      ...(this.drawn.size < this.runs.length ? [`${inSteps(this.drawn.size)} of ${inSteps(this.runs.length)} runs are drawn, as ticked in the table`] : []),
    ].join("; ");
  }

  lines(key) {
    const found = [];
    const scale = this.stepScale();
    for (const [label, members] of this.groups) {
      const curves = members.filter((run) => this.drawn.has(run) && run.curves[key] && this.shift(run) !== null).map((run) => {
        const one = run.curves[key];
        const steps = unpacked(one.steps);
        return { label: this.called(run, label, members), steps: this.align === "step" ? steps : Float64Array.from(steps, (step) => step - this.shift(run)), values: unpacked(one.values) };
      });
      if (!curves.length) continue;
      const together = curves.length > 1 && this.seeds === "band" ? band(curves, scale) : null;
      if (together) found.push({ ...together, label: label ? `${label} (${curves.length} seeds)` : `${curves.length} seeds` });
      else found.push(...curves);
    }
    return found;
  }
}

function comparePanel(page, number, usual) {
  const id = `compare-${number}`;
  const { panel, body } = panelOf(id);
  const keys = new Map();
  for (const run of page.runs) for (const [key, one] of Object.entries(run.curves)) keys.set(key, one.title);
  // What a single run has is no comparison.
  for (const key of [...keys.keys()]) if (page.runs.filter((run) => run.curves[key]).length < 2) keys.delete(key);
  if (!keys.has(usual)) {
    panel.remove();
    return;
  }
  const select = document.getElementById(`${id}-of`);
  for (const group of new Set([...keys.keys()].map((key) => key.split(".")[0]))) {
    const options = [...keys].filter(([key]) => key.startsWith(`${group}.`)).map(([key, title]) => html("option", { value: key }, title));
    select.append(html("optgroup", { label: group }, ...options));
  }
  select.value = usual;
  const scale = document.getElementById(`${id}-scale`);
  const spec = () => {
    const key = select.value;
    const percent = key.endsWith("accuracy");
    document.getElementById(`${id}-title`).textContent = keys.get(key);
    const usually = /loss|sharpness|trace/.test(key) ? "log" : "linear";
    return { lines: page.lines(key), kind: scale.value === "auto" ? usually : scale.value, percent: percent && scale.value !== "log", unit: key.endsWith("_loss") ? "nats" : "", label: keys.get(key), height: 270 };
  };
  const one = { chart: new Chart(body, spec(), page), update: () => one.chart.change(spec()) };
  page.panels.push(one);
  page.choice(`${id}-of`, one.update);
  page.choice(`${id}-scale`, one.update);
  addTable(panel, () => one.chart);
}

function buildDiagram(page) {
  const { panel, body } = panelOf("diagram");
  const axes = page.axes.filter((name) => name !== "seed");
  if (!axes.length) {
    panel.remove();
    return;
  }
  const [x, y] = ["diagram-x", "diagram-y"].map((id) => document.getElementById(id));
  for (const select of [x, y]) select.append(...axes.map((name) => html("option", { value: name }, name)));
  y.append(html("option", { value: "" }, "nothing"));
  y.value = axes[0];
  x.value = axes[1] || axes[0];
  if (axes.length === 1) y.value = "";
  const sorted = (name) => [...new Set(page.runs.map((run) => run.settings[name]))].sort((one, other) => (typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other))));
  const shown = (value) => (value === null ? "" : String(value ?? "—"));
  const draw = () => {
    const table = html("table", { class: "diagram" });
    const columns = sorted(x.value);
    const rows = y.value ? sorted(y.value).reverse() : [null];
    for (const row of rows) {
      const line = html("tr", {}, html("th", { scope: "row" }, shown(row)));
      for (const column of columns) {
        const here = page.runs.filter((run) => run.settings[x.value] === column && (row === null || run.settings[y.value] === row));
        line.append(html("td", {}, ...here.map((run) => square(page, run))));
      }
      table.append(line);
    }
    const foot = html("tr", {}, html("th", {}, y.value ? `${y.value} ↑  ${x.value} →` : `${x.value} →`), ...columns.map((column) => html("th", { scope: "col" }, shown(column))));
    table.append(foot);
    body.replaceChildren(table);
  };
  page.choice("diagram-x", draw);
  page.choice("diagram-y", draw);
  draw();
}

function square(page, run) {
  const one = html(run.link ? "a" : "span", { class: `phase ${run.phase}`, "aria-label": `${run.name}: ${run.phase}` }, PHASES[run.phase] || "?");
  if (run.link) one.setAttribute("href", run.link);
  one.addEventListener("pointermove", (event) => page.tip(event, [run.name, run.phase, `memorized ${run.memorized === null ? "—" : inSteps(run.memorized)}, generalised ${run.generalised === null ? "—" : inSteps(run.generalised)}`, `test accuracy at the end ${inPercent(run.test_accuracy)}`]));
  one.addEventListener("pointerleave", () => page.tip(null));
  return one;
}

function bindTable(page) {
  const body = document.querySelector("#runs tbody");
  const heads = [...document.querySelectorAll("#runs thead th")];
  const value = (row, column) => {
    const cell = row.children[column];
    const text = cell.dataset.value ?? cell.textContent;
    const number = text === "inf" ? Infinity : Number(text);
    return text.trim() === "" || Number.isNaN(number) ? text : number;
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (one, other) => (typeof one === "number" && typeof other === "number" ? (one > other) - (one < other) : String(one).localeCompare(String(other)));
      body.append(...[...body.children].sort((one, other) => (down ? -1 : 1) * order(value(one, column), value(other, column))));
    });
  });
  const byName = new Map(page.runs.map((run) => [run.name, run]));
  for (const row of body.children) {
    const box = row.querySelector("input");
    const run = byName.get(row.dataset.name);
    if (!box || !run) continue;
    box.checked = page.drawn.has(run);
    box.addEventListener("change", () => {
      if (box.checked) page.drawn.add(run);
      else page.drawn.delete(run);
      page.redraw();
    });
  }
}

function compare() {
  const page = new Comparison(JSON.parse(document.getElementById("numbers").textContent));
  page.choice("align", (value) => {
    page.align = value;
    page.reach();
    page.step = value === "step" ? page.last : 0;
    page.redraw();
  });
  page.choice("seeds", (value) => {
    page.seeds = value;
    page.redraw();
  });
  page.bindSheet();
  ["log.test_accuracy", "log.test_loss", "weight_norm.weight_norm", "sharpness.sharpness"].forEach((usual, i) => comparePanel(page, i + 1, usual));
  buildDiagram(page);
  bindTable(page);
  bindSaving(page);
  page.say();
  document.documentElement.classList.add("ready");
  page.recall();
}

compare();
