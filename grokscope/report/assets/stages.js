// The stages of a run and the gaps in its log, drawn behind the curves, and their legend.

import { html, svg } from "./elements.js";

const stageClass = (stage) => `stage ${stage.name.replaceAll(" ", "-")}`;

export function drawStages(chart, parent) {
  const { box, page, number } = chart;
  const group = svg("g");
  for (const stage of page.stages) {
    const start = chart.px(Math.max(stage.first, page.first));
    const end = chart.px(Math.min(stage.last, page.last));
    const area = { x: start, y: box.top, width: Math.max(0, end - start), height: box.height };
    group.append(svg("rect", { class: stageClass(stage), ...area }));
    if (chart.spec.namesStages && end - start > 7 * stage.name.length) {
      const middle = { x: (start + end) / 2, y: box.top - 6, "text-anchor": "middle" };
      group.append(svg("text", { class: "stage-name", ...middle }, stage.name));
    }
  }
  for (const [first, last] of page.gaps) {
    const size = { width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
    const hatch = svg("pattern", { id: `hatch-${number}`, ...size });
    hatch.append(svg("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 }));
    const width = Math.max(2, chart.px(last) - chart.px(first));
    const area = { x: chart.px(first), y: box.top, width, height: box.height };
    group.append(hatch, svg("rect", { ...area, fill: `url(#hatch-${number})` }));
  }
  parent.append(group);
}

// Return a stage's name next to a swatch of its colour.
export function stageChip(stage) {
  const swatch = svg("svg", { width: 14, height: 10, "aria-hidden": "true" });
  swatch.append(svg("rect", { class: `${stageClass(stage)} swatch`, x: 0.5, y: 0.5, width: 13, height: 9 }));
  return html("span", { class: "chip stage-chip" }, swatch, stage.name);
}

// Add the legend of the stages' colours, once for all charts.
export function addStageLegend(page, parent) {
  const legend = parent.appendChild(html("p", { class: "readout stages" }));
  const draw = () => {
    legend.replaceChildren(...(page.stages.length ? ["background:", ...page.stages.map(stageChip)] : []));
    legend.hidden = !page.stages.length;
  };
  draw();
  return { draw, setStep: () => {} };
}
