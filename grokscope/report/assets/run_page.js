// The page of one run: its current step, the controls that change the step, and the panels that follow it.

import { clamp, formatInteger, formatPercent, nearestIndex, unpack } from "./numbers.js";
import { createStepNote } from "./step_note.js";
import { html } from "./elements.js";
import { BasePage } from "./base_page.js";
import { stageChip } from "./stages.js";

const SECONDS_PER_RUN = 14;

export class RunPage extends BasePage {
  constructor(payload) {
    super(payload);
    this.steps = unpack(payload.steps);
    this.logSteps = unpack(payload.log.steps);
    // The parts of the equations that the log tells apart; all of them if the training set is unknown.
    this.parts = payload.log.train_loss
      ? [{ label: "train", prefix: "train_" }, { label: "test", prefix: "test_" }]
      : [{ label: "all", prefix: "" }];
    this.first = Math.min(this.steps[0], this.logSteps[0]);
    this.last = Math.max(this.steps[this.steps.length - 1], this.logSteps[this.logSteps.length - 1]);
    this.logNote = createStepNote(this, "at", this.logSteps);
    this.stages = payload.stages;
    this.gaps = payload.gaps;
    this.labels = "some";
    this.followers = new Map();
    this.index = this.steps.length - 1;
    this.step = this.steps[this.index];
    const observe = (entries) => entries.forEach((entry) => this.setVisible(entry));
    this.visibilityObserver = new IntersectionObserver(observe, { rootMargin: "200px" });
  }

  // Return the name of an element: in a group of permutations its cycles, elsewhere its number.
  elementName(element) {
    return this.payload.names ? this.payload.names[element] : String(element);
  }

  // -- The panels.

  // Update a part of a panel whenever the step changes while the panel is on the screen.
  follow(panel, part) {
    if (!this.followers.has(panel)) {
      this.followers.set(panel, { parts: [], isVisible: true, step: null });
      this.visibilityObserver.observe(panel);
    }
    this.followers.get(panel).parts.push(part);
  }

  setVisible(entry) {
    this.followers.get(entry.target).isVisible = entry.isIntersecting;
    if (entry.isIntersecting) this.refresh();
  }

  refresh() {
    for (const follower of this.followers.values()) {
      if ((follower.isVisible || this.isPrinting) && follower.step !== this.step) {
        follower.step = this.step;
        for (const part of follower.parts) part.setStep(this.step);
      }
    }
  }

  redraw() {
    this.forgetColours();
    for (const follower of this.followers.values()) {
      follower.step = this.step;
      for (const part of follower.parts) {
        if (part.draw) part.draw();
        else part.setStep(this.step);
      }
    }
  }

  // -- The step.

  goTo(step) {
    this.goToIndex(nearestIndex(this.steps, step));
  }

  goToIndex(index) {
    this.index = clamp(Math.round(index), 0, this.steps.length - 1);
    this.step = this.steps[this.index];
    if (!this.frameRequest) {
      this.frameRequest = requestAnimationFrame(() => {
        this.frameRequest = 0;
        this.showStep();
        this.refresh();
      });
    }
    this.store("step", this.step);
  }

  showStep() {
    const step = formatInteger(this.step);
    this.slider.value = this.index;
    this.slider.setAttribute("aria-valuetext", `step ${step}, checkpoint ${this.index + 1} of ${this.steps.length}`);
    this.stepValue.textContent = step;
    this.status.replaceChildren(...this.statusParts());
  }

  statusParts() {
    const row = nearestIndex(this.logSteps, this.step);
    const parts = this.parts.map(({ label, prefix }, i) => {
      const accuracy = formatPercent(unpack(this.payload.log[`${prefix}accuracy`])[row]);
      return html("span", { class: `chip c${i}` }, `${label} ${accuracy}`);
    });
    if (this.logNote) {
      this.logNote.setStep(this.step);
      parts.push(this.logNote.element);
    }
    const stage = this.currentStage();
    return stage ? [...parts, stageChip(stage)] : parts;
  }

  // Return the stage at the page's step. A stage's last step belongs to the next stage, where there is one.
  currentStage() {
    const { step } = this;
    const isIn = ({ first, last }) => step >= first && (step < last || (step === last && last === this.last));
    return this.stages.find(isIn);
  }

  play(isPlaying = !this.isPlaying) {
    this.isPlaying = isPlaying;
    this.button.setAttribute("aria-pressed", isPlaying);
    this.button.textContent = isPlaying ? "❚❚" : "►";
    this.button.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
    if (!isPlaying) return;
    const end = this.steps.length - 1;
    if (this.index === end) this.goToIndex(0);
    let position = this.index;
    let previous = null;
    const advance = (now) => {
      if (!this.isPlaying) return;
      // If the reader moved the slider meanwhile, continue from there.
      if (Math.round(position) !== this.index) position = this.index;
      const seconds = previous === null ? 0 : Math.min(0.1, (now - previous) / 1000);
      previous = now;
      position = Math.min(end, position + (seconds * end) / SECONDS_PER_RUN);
      if (Math.round(position) !== this.index) this.goToIndex(position);
      if (position >= end) this.play(false);
      else requestAnimationFrame(advance);
    };
    requestAnimationFrame(advance);
  }

  bindControls() {
    this.slider = document.getElementById("step");
    this.button = document.getElementById("play");
    this.stepValue = document.getElementById("step-value");
    this.status = document.getElementById("status");
    this.slider.max = this.steps.length - 1;
    this.slider.addEventListener("input", () => this.goToIndex(Number(this.slider.value)));
    this.button.addEventListener("click", () => this.play());
    document.addEventListener("keydown", (event) => this.handleKey(event));
    this.bindPage();
    this.placeOptions();
    this.bindPhases();
  }

  // On a phone, the sticky bar holds only the slider and the numbers, and the options follow it.
  placeOptions() {
    const [bar, options] = [this.slider.closest(".controls"), document.querySelector(".options")];
    const isNarrow = window.matchMedia("(max-width: 720px)");
    const place = () => (isNarrow.matches ? bar.after(options) : bar.append(options));
    isNarrow.addEventListener("change", place);
    place();
  }

  bindPhases() {
    const { phases, stages } = this.payload;
    if (!phases.length) {
      document.getElementById("shaded").closest("label").remove();
      return;
    }
    this.bindChoice("shaded", (value) => {
      this.stages = value === "nanda" ? phases : stages;
      this.showStep();
      this.redraw();
    });
  }

  setPrinting(isPrinting) {
    this.play(false);
    super.setPrinting(isPrinting);
  }

  handleKey(event) {
    const { target, key } = event;
    const hasOwnKeys = target.closest("select, textarea, input:not([type=range]), pre, .scroll");
    if (event.altKey || event.ctrlKey || event.metaKey || hasOwnKeys) return;
    const stride = event.shiftKey ? 10 : 1;
    const index = {
      ArrowLeft: this.index - stride, ArrowRight: this.index + stride, Home: 0, End: this.steps.length - 1,
    }[key];
    if (index !== undefined) this.goToIndex(index);
    else if (key === " " && !target.closest("button, summary, a")) this.play();
    else return;
    event.preventDefault();
  }

  restoreChoices() {
    const parameters = super.restoreChoices();
    const step = Number(parameters.get("step"));
    if (parameters.has("step") && Number.isFinite(step)) this.goTo(step);
    return parameters;
  }
}
