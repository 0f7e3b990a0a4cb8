// The page's state: which step, which axis; what moves it, and everything that follows it.

const SECONDS_FOR_A_RUN = 14;

class Page extends Sheet {
  constructor(payload) {
    super(payload);
    this.steps = unpacked(payload.steps);
    const logged = unpacked(payload.log.steps);
    this.first = Math.min(this.steps[0], logged[0]);
    this.last = Math.max(this.steps[this.steps.length - 1], logged[logged.length - 1]);
    this.logged = shownStep(this, "at", logged);
    this.stages = payload.stages;
    this.gaps = payload.gaps;
    this.labels = "some";
    this.followers = [];
    this.index = this.steps.length - 1;
    this.step = this.steps[this.index];
    this.seen = new IntersectionObserver((entries) => entries.forEach((entry) => this.see(entry)), { rootMargin: "200px" });
  }

  // What an element is called: by its cycles, for instance, in a group of permutations.
  nameOf(element) {
    return this.payload.names ? this.payload.names[element] : String(element);
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
    if (this.logged) {
      this.logged.setStep(this.step);
      parts.push(this.logged.element);
    }
    return stage ? [...parts, stageChip(stage)] : parts;
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
    this.bindSheet();
    // On a phone what stays in sight holds the slider and the figures alone, and the choices lie below.
    const [bar, options, small] = [this.slider.closest(".controls"), document.querySelector(".options"), window.matchMedia("(max-width: 720px)")];
    const place = () => (small.matches ? bar.after(options) : bar.append(options));
    small.addEventListener("change", place);
    place();
    const { phases, stages } = this.payload;
    if (!phases.length) find("shaded").closest("label").remove();
    else {
      this.choice("shaded", (value) => {
        this.stages = value === "nanda" ? phases : stages;
        this.showStep();
        this.redraw();
      });
    }
  }

  print(on) {
    this.play(false);
    super.print(on);
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

  recall() {
    const asked = super.recall();
    const step = Number(asked.get("step"));
    if (asked.has("step") && Number.isFinite(step)) this.goTo(step);
    return asked;
  }
}
