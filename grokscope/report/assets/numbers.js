// Arrays of the page's payload, scales and ticks of an axis, and the formatting of numbers.

const ARRAY_TYPES = { f4: Float32Array, u1: Uint8Array, u2: Uint16Array, i4: Int32Array };
const unpackedArrays = new WeakMap();

// Return a packed array as a typed array with a `shape`, or null. Quantised arrays become floats.
export function unpack(packed) {
  if (!packed) return null;
  let array = unpackedArrays.get(packed);
  if (!array) {
    const text = atob(packed.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    array = new ARRAY_TYPES[packed.type](bytes.buffer);
    if ("scale" in packed) array = Float32Array.from(array, (level) => packed.offset + packed.scale * level);
    array.shape = packed.shape;
    // The base64 text takes as much memory as the array itself.
    delete packed.data;
    unpackedArrays.set(packed, array);
  }
  return array;
}

// Return the index of the number in `sorted` that is nearest to `value`; the first of two equally near ones.
export function nearestIndex(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low > 0 && value - sorted[low - 1] <= sorted[low] - value ? low - 1 : low;
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Order numbers by size, and all other values by their text.
export function compareValues(a, b) {
  return typeof a === "number" && typeof b === "number" ? (a > b) - (a < b) : String(a).localeCompare(String(b));
}

// -- Formatting.

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

export const formatInteger = (value) => Math.round(value).toLocaleString("en-US");
export const formatPercent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
export const superscript = (exponent) => [...String(exponent)].map((sign) => SUPERSCRIPTS[sign]).join("");

// Return a number with at most `digits` significant digits and without trailing zeros.
export function formatNumber(value, digits = 4) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size < 1e-3 || size >= 1e6) {
    const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
    const trimmed = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return `${sign}${trimmed === "1" ? "" : `${trimmed}·`}10${superscript(Number(exponent))}`;
  }
  return sign + Number(size.toPrecision(digits)).toLocaleString("en-US", { maximumSignificantDigits: digits });
}

// -- Axes.

// Return about `count` round numbers between `low` and `high`.
export function roundTicks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const interval = [1, 2, 5, 10].map((factor) => factor * power).find((width) => width >= raw * 0.999) || 10 * power;
  const ticks = [];
  for (let i = Math.ceil(low / interval - 1e-9); i * interval <= high + 1e-9 * interval; i++) {
    ticks.push(i === 0 ? 0 : Number((i * interval).toPrecision(12)));
  }
  return ticks;
}

function powersOfTen(low, high, count) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  if (last - first < 1) return roundTicks(low, high, count).filter((tick) => tick > 0);
  const stride = Math.ceil((last - first + 1) / (count + 1));
  const ticks = [];
  for (let power = first; power <= last; power++) if ((power - last) % stride === 0) ticks.push(10 ** power);
  return ticks;
}

// Return an axis of values. `at` maps a value to a share of the axis from 0 to 1; NaN if it cannot be drawn.
export function valueScale(kind, low, high) {
  if (kind === "log") {
    const [first, last] = [Math.log10(low), Math.log10(high)];
    const at = (value) => (value > 0 ? (Math.log10(value) - first) / (last - first) : NaN);
    return { at, ticks: (count) => powersOfTen(low, high, count) };
  }
  return { at: (value) => (value - low) / (high - low), ticks: (count) => roundTicks(low, high, count) };
}

const LINEAR_UP_TO = 10;
const LINEAR_SHARE = 0.35;

// Return an axis of steps. A logarithmic one is linear up to step 10, so that it includes step 0.
export function makeStepScale(kind, first, last) {
  const isLog = kind === "log";
  const bend = (step) =>
    step <= LINEAR_UP_TO ? (LINEAR_SHARE * step) / LINEAR_UP_TO : LINEAR_SHARE + Math.log10(step / LINEAR_UP_TO);
  const unbend = (u) =>
    u <= LINEAR_SHARE ? (u / LINEAR_SHARE) * LINEAR_UP_TO : LINEAR_UP_TO * 10 ** (u - LINEAR_SHARE);
  const identity = (x) => x;
  const [forward, backward] = isLog ? [bend, unbend] : [identity, identity];
  const [start, end] = [forward(first), forward(Math.max(last, first + 1))];
  return {
    at: (step) => (forward(step) - start) / (end - start),
    step: (share) => backward(start + clamp(share, 0, 1) * (end - start)),
    ticks: (count) => {
      if (!isLog) return roundTicks(first, last, count);
      const ticks = [0];
      for (let power = LINEAR_UP_TO; power <= last; power *= 10) ticks.push(power);
      if (last > 1.05 * ticks[ticks.length - 1]) ticks.push(last);
      const inside = ticks.filter((tick) => tick >= first && tick <= last);
      return inside.length > 1 ? inside : [first, last];
    },
    minorTicks: () => {
      const ticks = [];
      if (isLog) for (let power = 10; power <= last; power *= 10) for (let m = 2; m < 10; m++) ticks.push(m * power);
      return ticks.filter((tick) => tick >= first && tick <= last);
    },
  };
}
