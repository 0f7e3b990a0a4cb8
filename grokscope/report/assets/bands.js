// The seeds of one setting as a band: their median and range at common steps.

import { clamp } from "./numbers.js";

const N_POINTS = 240;

// Return a curve's value between its points by linear interpolation; NaN outside its range.
function interpolate({ steps, values }, step) {
  if (step < steps[0] || step > steps[steps.length - 1]) return NaN;
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle;
    else high = middle;
  }
  const share = steps[high] === steps[low] ? 0 : (step - steps[low]) / (steps[high] - steps[low]);
  return values[low] + share * (values[high] - values[low]);
}

function median(sorted) {
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// Return the median and the extremes of several curves over their common steps; null if they have none in common.
export function makeBand(curves, scale) {
  const first = Math.max(...curves.map(({ steps }) => steps[0]));
  const last = Math.min(...curves.map(({ steps }) => steps[steps.length - 1]));
  if (!(last > first)) return null;
  const [from, to] = [scale.at(first), scale.at(last)];
  const stepOf = (_, i) => scale.step(from + ((to - from) * i) / (N_POINTS - 1));
  const steps = Float64Array.from({ length: N_POINTS }, stepOf);
  // The scale rounds, and the ends must be exact.
  [steps[0], steps[N_POINTS - 1]] = [first, last];
  const sorted = [...steps].map((step) => {
    const inside = clamp(step, first, last);
    return curves.map((curve) => interpolate(curve, inside)).sort((a, b) => a - b);
  });
  return {
    steps,
    values: Float64Array.from(sorted, median),
    low: Float64Array.from(sorted, (values) => values[0]),
    high: Float64Array.from(sorted, (values) => values[values.length - 1]),
  };
}
