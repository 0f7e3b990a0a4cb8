// A page that is watched: it says how the training stands, and loads itself anew when there is a newer one.

const MOST_UNANSWERED = 5;

function renewing() {
  const said = document.getElementById("live");
  const { version, every } = said.dataset;
  let touched = -Infinity;
  let [stood, unanswered] = [said.textContent, 0];
  for (const kind of ["pointerdown", "keydown", "wheel", "input", "change"]) {
    window.addEventListener(kind, () => { touched = performance.now(); }, { capture: true, passive: true });
  }

  // Nobody is torn from what they are doing; an address is written a moment after a choice.
  const isBusy = () => performance.now() - touched < 1500
    || document.getElementById("play").getAttribute("aria-pressed") === "true"
    || document.querySelector("details[open]") !== null;

  // The address keeps every choice; who was at the last step is at the new last one.
  const renew = () => {
    const slider = document.getElementById("step");
    if (slider.value === slider.max) {
      const kept = new URLSearchParams(location.hash.slice(1));
      kept.delete("step");
      history.replaceState(null, "", `#${kept}`);
    }
    location.reload();
  };

  const ask = async () => {
    let news = null;
    try {
      const answer = await fetch("state", { cache: "no-store" });
      if (answer.ok) news = await answer.json();
    } catch {
      news = null;
    }
    if (news === null) {
      said.textContent = `${stood} Nobody shows this run any more; the page stays as it is.`;
      unanswered += 1;
      if (unanswered > MOST_UNANSWERED) return;
    } else {
      [stood, unanswered] = [news.sentence, 0];
      const isNewer = String(news.version) !== version;
      if (isNewer && !isBusy()) return renew();
      said.textContent = isNewer ? `${news.sentence} Newer checkpoints are shown as soon as nothing plays and no table is open.` : news.sentence;
    }
    setTimeout(ask, 1000 * Number(every));
  };
  ask();
}

renewing();
