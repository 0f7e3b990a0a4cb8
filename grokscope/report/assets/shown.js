// What is shown at the page's step was perhaps measured at another; then that step is said.

// A note of the nearest of `steps`, after `words`; null where every step of the page is among them.
// It takes the same room at every step.
function shownStep(page, words, steps) {
  if (!page.steps || page.steps.every((step) => steps[nearest(steps, step)] === step)) return null;
  const number = html("span", { class: "number" });
  number.style.minWidth = `${inSteps(page.last).length}ch`;
  const element = html("span", { class: "at" }, `${words} step `, number);
  const setStep = (step) => {
    const at = steps[nearest(steps, step)];
    number.textContent = inSteps(at);
    element.classList.toggle("another", at !== step);
  };
  return { element, setStep };
}

// The note below a panel's pictures: what they are, and which is shown.
function notePictures(page, panel, said, steps) {
  const shown = shownStep(page, "the nearest is shown:", steps);
  if (!shown) return panel.append(html("p", { class: "key" }, said));
  panel.append(html("p", { class: "key" }, `${said}; `, shown.element));
  page.follow(panel, shown);
}
