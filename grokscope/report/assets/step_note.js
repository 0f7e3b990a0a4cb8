// Notes that name the step of the numbers on screen, where they were measured at another step than the page's.

import { formatInteger, nearestIndex } from "./numbers.js";
import { html } from "./elements.js";

// Return a note that says which of `steps` is shown, after `words`; null if `steps` include every step of the page.
// The note takes the same space at every step, so that nothing moves.
export function createStepNote(page, words, steps) {
  if (!page.steps || page.steps.every((step) => steps[nearestIndex(steps, step)] === step)) return null;
  const number = html("span", { class: "number" });
  number.style.minWidth = `${formatInteger(page.last).length}ch`;
  const element = html("span", { class: "step-note" }, `${words} step `, number);
  const setStep = (step) => {
    const nearest = steps[nearestIndex(steps, step)];
    number.textContent = formatInteger(nearest);
    element.classList.toggle("differs", nearest !== step);
  };
  return { element, setStep };
}

// Add a note below a panel's pictures: `words`, and which of `steps` is shown.
export function addPictureNote(page, panel, words, steps) {
  const note = createStepNote(page, "showing", steps);
  if (!note) {
    panel.append(html("p", { class: "key" }, words));
    return;
  }
  panel.append(html("p", { class: "key" }, `${words}; `, note.element));
  page.follow(panel, note);
}
