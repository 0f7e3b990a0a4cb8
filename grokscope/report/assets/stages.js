// The stages of a run and the steps that are lost, behind the curves; and what colour stands for which.

const stageClass = (stage) => `stage ${stage.name.replaceAll(" ", "-")}`;

function drawStages(chart, into) {
  const { box, page, number } = chart;
  const group = svg("g");
  for (const stage of page.stages) {
    const [start, end] = [chart.px(Math.max(stage.first, page.first)), chart.px(Math.min(stage.last, page.last))];
    group.append(svg("rect", { class: stageClass(stage), x: start, y: box.top, width: Math.max(0, end - start), height: box.height }));
    if (chart.spec.named && end - start > 7 * stage.name.length) {
      group.append(svg("text", { class: "stage-name", x: (start + end) / 2, y: box.top - 6, "text-anchor": "middle" }, stage.name));
    }
  }
  for (const [first, last] of page.gaps) {
    const hatch = svg("pattern", { id: `hatch-${number}`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    hatch.append(svg("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 }));
    const width = Math.max(2, chart.px(last) - chart.px(first));
    group.append(hatch, svg("rect", { x: chart.px(first), y: box.top, width, height: box.height, fill: `url(#hatch-${number})` }));
  }
  into.append(group);
}

// A stage's name beside its colour.
function stageChip(stage) {
  const swatch = svg("svg", { width: 14, height: 10, "aria-hidden": "true" });
  swatch.append(svg("rect", { class: `${stageClass(stage)} swatch`, x: 0.5, y: 0.5, width: 13, height: 9 }));
  return html("span", { class: "chip stage-chip" }, swatch, stage.name);
}

// The colours of the stages that are shown, once for all charts.
function stageLegend(page, host) {
  const legend = host.appendChild(html("p", { class: "readout stages" }));
  const draw = () => {
    legend.replaceChildren(...(page.stages.length ? ["behind the curves:", ...page.stages.map(stageChip)] : []));
    legend.hidden = !page.stages.length;
  };
  draw();
  return { draw, setStep: () => {} };
}
