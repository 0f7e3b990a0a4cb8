// Runs aligned by an event of their own, and the seeds of one setting as a band.

const BAND_POINTS = 240;

// A curve at any place between its points, on a straight line; NaN outside of it.
function interpolated(steps, values, at) {
  if (at < steps[0] || at > steps[steps.length - 1]) return NaN;
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= at) low = middle;
    else high = middle;
  }
  const share = steps[high] === steps[low] ? 0 : (at - steps[low]) / (steps[high] - steps[low]);
  return values[low] + share * (values[high] - values[low]);
}

function median(sorted) {
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// The median and the extremes of several curves, wherever all of them are.
function band(curves, scale) {
  const first = Math.max(...curves.map((one) => one.steps[0]));
  const last = Math.min(...curves.map((one) => one.steps[one.steps.length - 1]));
  if (!(last > first)) return null;
  const [from, to] = [scale.at(first), scale.at(last)];
  const steps = Float64Array.from({ length: BAND_POINTS }, (_, i) => scale.step(from + ((to - from) * i) / (BAND_POINTS - 1)));
  [steps[0], steps[BAND_POINTS - 1]] = [first, last];
  const all = [...steps].map((step) => curves.map((one) => interpolated(one.steps, one.values, clamped(step, first, last))).sort((a, b) => a - b));
  return {
    steps,
    values: Float64Array.from(all, median),
    low: Float64Array.from(all, (one) => one[0]),
    high: Float64Array.from(all, (one) => one[one.length - 1]),
  };
}
