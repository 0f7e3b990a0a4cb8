// Numbers: arrays out of the page's payload, scales, ticks, and how a number is written.

const KINDS = { f4: Float32Array, u1: Uint8Array, u2: Uint16Array, i4: Int32Array };
const unpackedBefore = new WeakMap();

// A packed array as a typed array, with its `shape`. What was quantised comes back as floats.
function unpacked(packed) {
  if (!packed) return null;
  let array = unpackedBefore.get(packed);
  if (!array) {
    const text = atob(packed.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    array = new KINDS[packed.type](bytes.buffer);
    if ("scale" in packed) array = Float32Array.from(array, (whole) => packed.offset + packed.scale * whole);
    array.shape = packed.shape;
    delete packed.data;
    unpackedBefore.set(packed, array);
  }
  return array;
}

// The place in `sorted` of what is nearest to `value`; of two as near the first.
function nearest(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low > 0 && value - sorted[low - 1] <= sorted[low] - value ? low - 1 : low;
}

const clamped = (value, low, high) => Math.min(high, Math.max(low, value));
const inSteps = (value) => Math.round(value).toLocaleString("en-US");
const inPercent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const raised = (exponent) => [...String(exponent)].map((sign) => RAISED[sign]).join("");

// A number to so many significant digits, without noughts that say nothing.
function written(value, digits = 4) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) {
    const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
    const trimmed = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return `${value < 0 ? "−" : ""}${trimmed === "1" ? "" : `${trimmed}·`}10${raised(Number(exponent))}`;
  }
  const rounded = Number(size.toPrecision(digits));
  return (value < 0 ? "−" : "") + rounded.toLocaleString("en-US", { maximumSignificantDigits: digits });
}

// Round numbers between two others, about `wanted` of them.
function roundTicks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw * 0.999) || 10 * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i === 0 ? 0 : Number((i * step).toPrecision(12)));
  return ticks;
}

// An axis of values: `at` gives a share of the axis from 0 to 1, or NaN where there is no place for a value.
function valueScale(kind, low, high) {
  if (kind === "log") {
    const [first, last] = [Math.log10(low), Math.log10(high)];
    const at = (value) => (value > 0 ? (Math.log10(value) - first) / (last - first) : NaN);
    return { low, high, at, ticks: (wanted) => logTicks(low, high, wanted) };
  }
  return { low, high, at: (value) => (value - low) / (high - low), ticks: (wanted) => roundTicks(low, high, wanted) };
}

function logTicks(low, high, wanted) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  if (last - first < 1) return roundTicks(low, high, wanted).filter((tick) => tick > 0);
  const every = Math.ceil((last - first + 1) / (wanted + 1));
  const ticks = [];
  for (let power = first; power <= last; power++) if ((power - last) % every === 0) ticks.push(10 ** power);
  return ticks;
}

const LINEAR_UP_TO = 10;
const LINEAR_SHARE = 0.35;

// The axis of steps. On the logarithmic one step 0 has a place of its own: up to step 10 it is linear.
function stepScale(kind, first, last) {
  const isLog = kind === "log";
  const bend = (step) => (step <= LINEAR_UP_TO ? (LINEAR_SHARE * step) / LINEAR_UP_TO : LINEAR_SHARE + Math.log10(step / LINEAR_UP_TO));
  const unbend = (u) => (u <= LINEAR_SHARE ? (u / LINEAR_SHARE) * LINEAR_UP_TO : LINEAR_UP_TO * 10 ** (u - LINEAR_SHARE));
  const straight = (x) => x;
  const [forth, back] = isLog ? [bend, unbend] : [straight, straight];
  const [start, end] = [forth(first), forth(Math.max(last, first + 1))];
  return {
    at: (step) => (forth(step) - start) / (end - start),
    step: (share) => back(start + clamped(share, 0, 1) * (end - start)),
    ticks: (wanted) => {
      if (!isLog) return roundTicks(first, last, wanted);
      const ticks = [0];
      for (let power = LINEAR_UP_TO; power <= last; power *= 10) ticks.push(power);
      if (last > 1.05 * ticks[ticks.length - 1]) ticks.push(last);
      const inside = ticks.filter((tick) => tick >= first && tick <= last);
      return inside.length > 1 ? inside : [first, last];
    },
    minor: () => {
      const ticks = [];
      if (isLog) for (let power = 10; power <= last; power *= 10) for (let m = 2; m < 10; m++) ticks.push(m * power);
      return ticks.filter((tick) => tick >= first && tick <= last);
    },
  };
}
