// The page of one run: which panel shows what.

function buildLosses(page) {
  const { panel, body } = panelOf("losses");
  const { log } = page.payload;
  const steps = unpacked(log.steps);
  const line = (name, label) => ({ label, steps, values: unpacked(log[name]), gaps: page.gaps });
  const lines = (kind) => [line(`train_${kind}`, "train"), line(`test_${kind}`, "test")];
  const loss = new Chart(body.appendChild(html("div")), { lines: lines("loss"), kind: "log", unit: "nats", height: 250, named: true, label: "Cross-entropy loss" }, page);
  const accuracy = new Chart(body.appendChild(html("div")), { lines: lines("accuracy"), percent: true, unit: "accuracy", height: 180, label: "Accuracy" }, page);
  page.follow(panel, loss);
  page.follow(panel, accuracy);
  page.follow(panel, stageLegend(page, body));
  addTable(panel, () => ({ spec: { label: "Losses and accuracies", lines: [...loss.spec.lines.map((one) => ({ ...one, label: `${one.label} loss` })), ...accuracy.spec.lines.map((one) => ({ ...one, label: `${one.label} accuracy` }))] } }));
}

function buildClouds(page) {
  const { clouds } = page.payload;
  const { panel, body } = panelOf("embedding");
  const small = html("div", { class: "planes" });
  const rest = document.getElementById("planes");
  clouds.planes.forEach((plane, i) => {
    const share = html("span", {}, plane.kind === "frequency" ? `${inPercent(plane.share)} of variance at the end` : "");
    const frame = html("div", { class: "picture" });
    const title = plane.kind === "frequency" ? plane.title : "components 1 and 2";
    const figure = html("figure", {}, html("figcaption", {}, html("b", {}, title), share), frame);
    if (i === 0) body.append(figure, ...(clouds.classes ? [classLegend(clouds)] : []));
    else small.append(figure);
    page.follow(i ? rest : panel, withPicture(new Cloud(frame, share, page, clouds, plane, i === 0)));
  });
  if (clouds.planes.length > 1) {
    rest.querySelector(".body").append(small);
    sayThinned(page, rest, clouds);
  } else {
    rest.remove();
  }
  page.choice("labels", (value) => {
    page.labels = value === "none" ? null : value;
    page.redraw();
  });
  sayThinned(page, panel, clouds);
}

// Whatever has one picture draws it and follows the step by it.
function withPicture(part) {
  return { draw: () => part.picture.draw(), setStep: (step) => part.picture.setStep(step) };
}

function sayThinned(page, panel, { steps }) {
  const [n, all] = [unpacked(steps).length, page.steps.length];
  if (n < all) notePictures(page, panel, `drawn at ${inSteps(n)} of ${inSteps(all)} checkpoints`, unpacked(steps));
}

function buildSpectrum(page) {
  const { spectra } = page.payload;
  const { panel, body } = panelOf("spectrum");
  if (!spectra.length) {
    document.getElementById("main").classList.add("no-circle");
    panel.remove();
    return;
  }
  const select = document.getElementById("spectrum-of");
  spectra.forEach((one, i) => select.append(html("option", { value: i }, one.title)));
  const spectrum = new Spectrum(body, page, spectra);
  page.choice("spectrum-of", (value) => {
    spectrum.choose(Number(value));
    panel.querySelector("details").open = false;
  });
  page.follow(panel, { draw: () => { spectrum.bars.draw(); spectrum.history.draw(); }, setStep: (step) => spectrum.setStep(step) });
  addTable(panel, () => ({ spec: { label: spectrum.chosen.title, lines: spectrum.lines() } }));
}

function buildHeads(page) {
  const { attention } = page.payload;
  const { panel, body } = panelOf("heads");
  if (!attention) {
    panel.remove();
    return;
  }
  const heads = new Heads(body, page, attention);
  page.follow(panel, { draw: () => heads.pictures.forEach((one) => one.draw()), setStep: (step) => heads.setStep(step) });
  const steps = unpacked(attention.steps);
  notePictures(page, panel, `means over ${inSteps(attention.n_equations)} equations, at ${inSteps(steps.length)} checkpoints`, steps);
}

function buildGrid(page) {
  const { panel, body } = panelOf("pairs");
  if (!page.payload.grid) {
    panel.remove();
    return;
  }
  const grid = new Grid(body, page, page.payload.grid);
  page.choice("pairs-show", (value) => grid.choose(value));
  page.follow(panel, withPicture(grid));
  sayThinned(page, panel, page.payload.grid);
}

// A panel whose quantity is chosen from the list of all that was measured.
function buildMeasure(page, id, usual) {
  const { quantities } = page.payload;
  const { panel, body } = panelOf(id);
  const select = document.getElementById(`${id}-of`);
  const first = usual.find((key) => quantities.some((one) => one.key === key));
  if (!first) {
    panel.remove();
    return;
  }
  for (const group of new Set(quantities.map((one) => one.group))) {
    const options = quantities.filter((one) => one.group === group).map((one) => html("option", { value: one.key }, one.title));
    select.append(html("optgroup", { label: group }, ...options));
  }
  select.value = first;
  const scale = document.getElementById(`${id}-scale`);
  const heading = document.getElementById(`${id}-title`);
  const spec = (key) => {
    const one = quantities.find((quantity) => quantity.key === key);
    const kind = scale.value === "auto" ? (one.logarithmic && positive(one) ? "log" : "linear") : scale.value;
    heading.textContent = `${one.group.replaceAll("_", " ")}: ${one.title}`;
    return { lines: one.lines.map(curve), kind, unit: one.unit, label: `${one.group}: ${one.title}`, height: 250, counted: true };
  };
  const chart = new Chart(body, spec(first), page);
  const change = () => {
    chart.change(spec(select.value));
    panel.querySelector("details").open = false;
  };
  page.choice(`${id}-of`, change);
  page.choice(`${id}-scale`, change);
  page.follow(panel, chart);
  addTable(panel, () => chart);
}

const positive = (quantity) => quantity.lines.some((line) => unpacked(line.values).some((value) => value > 0));

function start() {
  const page = new Page(JSON.parse(document.getElementById("numbers").textContent));
  page.bindControls();
  buildLosses(page);
  buildClouds(page);
  buildSpectrum(page);
  buildHeads(page);
  buildGrid(page);
  buildMeasure(page, "measure-1", ["weight_norm.norms"]);
  buildMeasure(page, "measure-2", ["sharpness.both"]);
  buildMeasure(page, "measure-3", ["progress.losses", "embedding.circle", "representations.losses", "embedding.effective_dimension"]);
  buildMeasure(page, "measure-4", ["fourier.gini", "representations.embedding_shares", "weight_norm.matrices"]);
  bindSaving(page);
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.of).textContent);
      button.textContent = "copied";
    });
  }
  document.documentElement.classList.add("ready");
  page.showStep();
  page.recall();
}

start();
