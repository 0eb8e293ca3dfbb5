// Numbers as people read them: three significant digits, one unit for all that stand together.

const UNITS = [
  ["kWh", 3.6e6],
  ["Wh", 3.6e3],
  ["J", 1],
];
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
export const NONE = "–";

export const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits: "0.0123", "12.3", "12,300", "1.23×10⁻⁷". */
export function sig(value, digits = 3) {
  if (!known(value)) return NONE;
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 6) return `${mantissa.replace("-", "−")}×10${superscript(exponent)}`;
  const rounded = Number(`${mantissa}e${exponent}`);
  const decimals = Math.max(0, digits - 1 - exponent);
  return withDecimals(decimals).format(rounded).replace("-", "−");
}

/** One for each number of decimals: making one takes twenty times as long as using it. */
const formats = new Map();

function withDecimals(decimals) {
  if (!formats.has(decimals)) {
    formats.set(decimals, new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
  }
  return formats.get(decimals);
}

function superscript(number) {
  const digits = [...String(Math.abs(number))].map((digit) => SUPERSCRIPTS[Number(digit)]).join("");
  return number < 0 ? `⁻${digits}` : digits;
}

/** The unit that some energies (joules) read best in: that of the middle one, because one far larger would push the rest to 0. */
export function energyUnit(joules) {
  const sorted = joules.filter((value) => known(value) && value > 0).sort((a, b) => a - b);
  const middle = sorted[sorted.length >> 1] ?? 0;
  const [name, size] = UNITS.find(([, size]) => middle >= size) ?? UNITS.at(-1);
  return { name, size };
}

/** One energy with the unit that suits it. */
export function energy(joules) {
  if (!known(joules)) return NONE;
  const unit = energyUnit([Math.abs(joules)]);
  return `${sig(joules / unit.size)} ${unit.name}`;
}

/** A share in [0, 1] as percent with one decimal, without the sign. */
export const percent = (share) => (known(share) ? (100 * share).toFixed(1) : NONE);

/** The unit that the longest of some durations (seconds) reads best in. */
export function timeUnit(seconds) {
  const most = Math.max(0, ...seconds.filter(known));
  if (most >= 2 * 86400) return { name: "days", size: 86400 };
  if (most >= 2 * 3600) return { name: "h", size: 3600 };
  return most >= 120 ? { name: "min", size: 60 } : { name: "s", size: 1 };
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const unit = timeUnit([seconds]);
  return `${sig(seconds / unit.size)} ${unit.name}`;
}

export function moment(unix) {
  return known(unix) && unix > 0 && unix < 8.64e12 ? new Date(1000 * unix).toLocaleString() : NONE;
}
