// The page's state: which step, which axis; what moves it, and everything that follows it.

const SECONDS_FOR_A_RUN = 14;

class Page {
  constructor(payload) {
    this.payload = payload;
    this.name = payload.name;
    this.steps = unpacked(payload.steps);
    const logged = unpacked(payload.log.steps);
    this.first = Math.min(this.steps[0], logged[0]);
    this.last = Math.max(this.steps[this.steps.length - 1], logged[logged.length - 1]);
    this.stages = payload.stages;
    this.gaps = payload.gaps;
    this.axis = "log";
    this.labels = "some";
    this.followers = [];
    this.address = new Map();
    this.choices = new Map();
    this.index = this.steps.length - 1;
    this.step = this.steps[this.index];
    this.tipBox = document.getElementById("tip");
    this.dark = window.matchMedia("(prefers-color-scheme: dark)");
    this.resized = new ResizeObserver((entries) => entries.forEach((entry) => this.resize(entry)));
    this.seen = new IntersectionObserver((entries) => entries.forEach((entry) => this.see(entry)), { rootMargin: "200px" });
    this.sizes = new WeakMap();
    this.forgetColours();
  }

  // -- What is drawn.

  // Let a part of a panel follow the step while the panel is on the screen.
  follow(panel, part) {
    let one = this.followers.find((follower) => follower.panel === panel);
    if (!one) {
      one = { panel, parts: [], visible: true, step: null };
      this.followers.push(one);
      this.seen.observe(panel);
    }
    one.parts.push(part);
  }

  see(entry) {
    const one = this.followers.find((follower) => follower.panel === entry.target);
    one.visible = entry.isIntersecting;
    if (one.visible) this.refresh();
  }

  refresh() {
    for (const one of this.followers) {
      if ((one.visible || this.printing) && one.step !== this.step) {
        one.step = this.step;
        for (const part of one.parts) part.setStep(this.step);
      }
    }
  }

  redraw() {
    this.forgetColours();
    for (const one of this.followers) {
      one.step = this.step;
      for (const part of one.parts) (part.draw ? part.draw() : part.setStep(this.step));
    }
  }

  watchSize(element, draw) {
    this.sizes.set(element, { width: 0, draw });
    this.resized.observe(element);
  }

  resize(entry) {
    const one = this.sizes.get(entry.target);
    const width = Math.round(entry.contentRect.width);
    if (width !== one.width) {
      one.width = width;
      one.draw();
    }
  }

  stepScale() {
    return stepScale(this.axis, this.first, this.last);
  }

  // -- Colours.

  forgetColours() {
    this.colours = new Map();
    const chosen = document.documentElement.dataset.theme;
    this.isDark = this.printing ? false : chosen ? chosen === "dark" : this.dark.matches;
  }

  colour(name) {
    if (!this.colours.has(name)) this.colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return this.colours.get(name);
  }

  rgb(name) {
    const hex = this.colour(name);
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }

  // -- The step.

  goTo(step) {
    this.goToIndex(nearest(this.steps, step));
  }

  goToIndex(index) {
    this.index = clamped(Math.round(index), 0, this.steps.length - 1);
    this.step = this.steps[this.index];
    if (!this.asked) {
      this.asked = requestAnimationFrame(() => {
        this.asked = 0;
        this.showStep();
        this.refresh();
      });
    }
    this.remember("step", this.step);
  }

  showStep() {
    this.slider.value = this.index;
    this.slider.setAttribute("aria-valuetext", `step ${inSteps(this.step)}, checkpoint ${this.index + 1} of ${this.steps.length}`);
    this.said.textContent = inSteps(this.step);
    this.status.replaceChildren(...this.statusParts());
  }

  statusParts() {
    const { log } = this.payload;
    const j = nearest(unpacked(log.steps), this.step);
    const stage = this.stages.find((one) => this.step >= one.first && this.step <= one.last && !(this.step === one.last && one.last !== this.last));
    const parts = [html("span", { class: "chip c0" }, `train ${inPercent(unpacked(log.train_accuracy)[j])}`), html("span", { class: "chip c1" }, `test ${inPercent(unpacked(log.test_accuracy)[j])}`)];
    return stage ? [...parts, html("span", { class: "chip stage-now" }, stage.name)] : parts;
  }

  play(on = !this.playing) {
    this.playing = on;
    this.button.setAttribute("aria-pressed", on);
    this.button.textContent = on ? "❚❚" : "►";
    this.button.setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) return;
    if (this.index === this.steps.length - 1) this.goToIndex(0);
    let place = this.index;
    let before = null;
    const move = (now) => {
      if (!this.playing) return;
      // Who moves the slider while it plays, plays on from there.
      if (Math.round(place) !== this.index) place = this.index;
      const passed = before === null ? 0 : Math.min(0.1, (now - before) / 1000);
      before = now;
      place = Math.min(this.steps.length - 1, place + (passed * (this.steps.length - 1)) / SECONDS_FOR_A_RUN);
      if (Math.round(place) !== this.index) this.goToIndex(place);
      if (place >= this.steps.length - 1) this.play(false);
      else requestAnimationFrame(move);
    };
    requestAnimationFrame(move);
  }

  bindControls() {
    const find = (id) => document.getElementById(id);
    Object.assign(this, { slider: find("step"), button: find("play"), said: find("step-said"), status: find("status") });
    this.slider.max = this.steps.length - 1;
    this.slider.addEventListener("input", () => this.goToIndex(Number(this.slider.value)));
    this.button.addEventListener("click", () => this.play());
    document.addEventListener("keydown", (event) => this.key(event));
    this.choice("axis", (value) => {
      this.axis = value;
      this.redraw();
    });
    this.choice("theme", (value) => {
      if (value === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = value;
      this.redraw();
    });
    const { phases, stages } = this.payload;
    if (!phases.length) find("shaded").closest("label").remove();
    else {
      this.choice("shaded", (value) => {
        this.stages = value === "nanda" ? phases : stages;
        this.showStep();
        this.redraw();
      });
    }
    this.dark.addEventListener("change", () => this.redraw());
    window.addEventListener("beforeprint", () => this.print(true));
    window.addEventListener("afterprint", () => this.print(false));
    window.addEventListener("hashchange", () => this.recall());
  }

  print(on) {
    this.play(false);
    this.printing = on;
    document.documentElement.classList.toggle("printing", on);
    this.redraw();
  }

  key(event) {
    const target = event.target;
    if (event.altKey || event.ctrlKey || event.metaKey || target.closest("select, textarea, input:not([type=range]), pre, .scroll")) return;
    const to = { ArrowLeft: this.index - 1, ArrowRight: this.index + 1, Home: 0, End: this.steps.length - 1 }[event.key];
    if (to !== undefined) this.goToIndex(event.shiftKey && event.key.startsWith("Arrow") ? this.index + 10 * (to - this.index) : to);
    else if (event.key === " " && !target.closest("button, summary, a")) this.play();
    else return;
    event.preventDefault();
  }

  // -- Choices, and the address that holds them.

  // A select whose choice is part of the address.
  choice(id, act) {
    const select = document.getElementById(id);
    const usual = select.value;
    this.choices.set(id, { select, usual, act });
    select.addEventListener("change", () => {
      this.remember(id, select.value === usual ? null : select.value);
      act(select.value);
    });
  }

  remember(name, value) {
    if (value === null) this.address.delete(name);
    else this.address.set(name, value);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => {
      const text = [...this.address].map(([key, one]) => `${key}=${encodeURIComponent(one)}`).join("&");
      // Some browsers keep a file's address as it is.
      try {
        history.replaceState(null, "", `#${text}`);
      } catch {
        this.saving = 0;
      }
    }, 300);
  }

  recall() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const [id, { select, usual, act }] of this.choices) {
      const value = asked.get(id) ?? usual;
      if (value === select.value || ![...select.options].some((option) => option.value === value)) continue;
      select.value = value;
      if (value !== usual) this.address.set(id, value);
      act(value);
    }
    const step = Number(asked.get("step"));
    if (asked.has("step") && Number.isFinite(step)) this.goTo(step);
  }

  // -- What the pointer is at.

  tip(event, rows) {
    this.tipBox.hidden = !event || !rows;
    if (this.tipBox.hidden) return;
    this.tipBox.replaceChildren(...rows.map((row) => html("div", {}, row)));
    const { offsetWidth: width, offsetHeight: height } = this.tipBox;
    const x = event.clientX + 14 + width > window.innerWidth ? event.clientX - width - 14 : event.clientX + 14;
    this.tipBox.style.left = `${Math.max(4, x)}px`;
    this.tipBox.style.top = `${clamped(event.clientY + 14, 4, window.innerHeight - height - 4)}px`;
  }
}
