// One curve of a chart: its line, error band, controls and points.

import { DASHES, svg } from "./elements.js";
import { unpack } from "./numbers.js";

// Fewer points than this get a dot each.
const MAX_DOTS = 40;

// Return a line of the payload with its arrays unpacked. `spread` is two standard errors, or the residual.
export function unpackLine(line) {
  const [error, residual] = [unpack(line.error), unpack(line.residual)];
  return {
    ...line,
    steps: unpack(line.steps),
    values: unpack(line.values),
    spread: error ? error.map((deviation) => 2 * deviation) : residual,
    isResidual: !error && !!residual,
    shuffled: unpack(line.shuffled),
  };
}

export function drawCurve(chart, plot, line, i) {
  const colour = `c${i % 8}`;
  const { box } = chart;
  const bounds = boundsOf(line);
  if (bounds) plot.append(svg("path", { class: `band ${colour}`, d: bandPath(chart, line, bounds) }));
  const untrained = chart.py(line.untrained ?? NaN);
  if (Number.isFinite(untrained)) {
    const ends = { x1: box.left, x2: box.left + box.width, y1: untrained, y2: untrained };
    plot.append(svg("line", { class: `untrained ${colour}`, ...ends }));
  }
  if (line.shuffled) {
    plot.append(svg("path", { class: `shuffled ${colour}`, d: curvePath(chart, line, line.shuffled) }));
  }
  const dash = DASHES[i % DASHES.length];
  const path = { class: `line ${colour}`, d: curvePath(chart, line, line.values) };
  plot.append(svg("path", { ...path, ...(dash && { "stroke-dasharray": dash }) }));
  if (line.steps.length >= MAX_DOTS) return;
  line.values.forEach((value, j) => {
    const y = chart.py(value);
    if (Number.isFinite(y)) {
      plot.append(svg("circle", { class: `point ${colour}`, cx: chart.px(line.steps[j]), cy: y, r: 2 }));
    }
  });
}

// Return the lower and upper ends of a line's band, or null.
function boundsOf({ values, spread, low, high }) {
  if (low) return [low, high];
  if (!spread) return null;
  return [-1, 1].map((sign) => values.map((value, j) => value + sign * spread[j]));
}

function bandPath(chart, line, [low, high]) {
  const bottom = chart.box.top + chart.box.height + 4;
  const yOf = (value) => {
    const y = chart.py(value);
    return (Number.isNaN(y) ? bottom : y).toFixed(1);
  };
  const [upper, lower] = [[], []];
  line.values.forEach((value, j) => {
    if (Number.isNaN(value)) return;
    const x = chart.px(line.steps[j]).toFixed(1);
    upper.push(`${x},${yOf(high[j])}`);
    lower.push(`${x},${yOf(low[j])}`);
  });
  return `M${upper.join("L")}L${lower.reverse().join("L")}Z`;
}

// Return a curve's path, broken at gaps and at values that cannot be drawn. Where points are denser than pixels, each
// column of pixels keeps its first, lowest, highest and last point.
function curvePath(chart, line, values) {
  const { steps, gaps = [] } = line;
  const isCrowded = values.length > 2 * chart.box.width;
  let [path, pen, column, points, gap] = ["", "M", NaN, [], 0];
  const flush = () => {
    if (!points.length) return;
    const ys = points.map(([, y]) => y);
    const [low, high] = [ys.indexOf(Math.min(...ys)), ys.indexOf(Math.max(...ys))];
    for (const j of new Set([0, Math.min(low, high), Math.max(low, high), points.length - 1])) {
      path += `${pen}${points[j][0].toFixed(1)},${points[j][1].toFixed(1)}`;
      pen = "L";
    }
    points = [];
  };
  for (let j = 0; j < values.length; j++) {
    while (gap < gaps.length && steps[j] > gaps[gap][0]) {
      flush();
      pen = "M";
      gap++;
    }
    const [x, y] = [chart.px(steps[j]), chart.py(values[j])];
    if (!Number.isFinite(y)) {
      flush();
      pen = "M";
      continue;
    }
    if (!isCrowded || Math.round(x) !== column) flush();
    column = Math.round(x);
    points.push([x, y]);
  }
  flush();
  return path;
}
