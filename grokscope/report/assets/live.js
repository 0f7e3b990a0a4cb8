// A watched page: show the training's status, and reload when the server has a newer page.

const MAX_UNANSWERED = 5;
// The address stores a choice a moment after it was made, and a reload must not lose it.
const QUIET_MS = 1500;
const REPORTING_EVENTS = ["pointerdown", "keydown", "wheel", "input", "change"];

function start() {
  const status = document.getElementById("live");
  const { version, interval } = status.dataset;
  let lastInput = -Infinity;
  let lastStatus = status.textContent;
  let nUnanswered = 0;
  const noteInput = () => { lastInput = performance.now(); };
  for (const name of REPORTING_EVENTS) window.addEventListener(name, noteInput, { capture: true, passive: true });

  const isBusy = () => performance.now() - lastInput < QUIET_MS
    || document.getElementById("play").getAttribute("aria-pressed") === "true"
    || document.querySelector("details[open]") !== null;

  // Reload with the reader's choices. A reader at the last step moves to the new last step.
  const reload = () => {
    const slider = document.getElementById("step");
    if (slider.value === slider.max) {
      const parameters = new URLSearchParams(location.hash.slice(1));
      parameters.delete("step");
      history.replaceState(null, "", `#${parameters}`);
    }
    location.reload();
  };

  // Return the server's state, or null if it does not answer.
  const fetchState = async () => {
    try {
      const response = await fetch("state", { cache: "no-store" });
      return response.ok ? await response.json() : null;
    } catch {
      return null;
    }
  };

  const poll = async () => {
    const state = await fetchState();
    if (state === null) {
      status.textContent = `${lastStatus} This page is no longer updated: grokscope watch has ended.`;
      nUnanswered += 1;
      if (nUnanswered > MAX_UNANSWERED) return;
    } else {
      [lastStatus, nUnanswered] = [state.status, 0];
      const isNewer = String(state.version) !== version;
      if (isNewer && !isBusy()) {
        reload();
        return;
      }
      const waiting = isNewer ? " Newer checkpoints appear once playback has stopped and all tables are closed." : "";
      status.textContent = lastStatus + waiting;
    }
    setTimeout(poll, 1000 * Number(interval));
  };
  poll();
}

start();
