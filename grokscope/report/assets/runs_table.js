// The table of runs: its headings sort it, and its checkboxes choose the runs that are drawn.

import { compareValues } from "./numbers.js";

export function bindTable(page) {
  bindSorting();
  const body = document.querySelector("#runs tbody");
  const runs = new Map(page.runs.map((run) => [run.name, run]));
  for (const row of body.children) {
    const box = row.querySelector("input");
    const run = runs.get(row.dataset.name);
    if (!box || !run) continue;
    box.checked = page.drawn.has(run);
    box.addEventListener("change", () => {
      if (box.checked) page.drawn.add(run);
      else page.drawn.delete(run);
      page.redraw();
    });
  }
}

function bindSorting() {
  const body = document.querySelector("#runs tbody");
  const heads = [...document.querySelectorAll("#runs thead th")];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const sortable of heads.filter((cell) => cell.hasAttribute("aria-sort"))) {
        sortable.setAttribute("aria-sort", "none");
      }
      head.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const compare = (a, b) => sign * compareValues(cellValue(a, column), cellValue(b, column));
      body.append(...[...body.children].sort(compare));
    });
  });
}

// Return a cell's value as a number if it is one, else as a text.
function cellValue(row, column) {
  const cell = row.children[column];
  const text = cell.dataset.value ?? cell.textContent;
  const number = text === "inf" ? Infinity : Number(text);
  return text.trim() === "" || Number.isNaN(number) ? text : number;
}
