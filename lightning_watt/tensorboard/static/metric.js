// SAM, ranks and the Pareto front. The arithmetic is that of lightning_watt/sam.py; a browser test holds the two together.

import { known } from "./format.js";

const J_PER = { kWh: 3.6e6, Wh: 3.6e3, J: 1 };
export const SAM_UNITS = Object.keys(J_PER);

/**
 * The Sustainable-Accuracy Metric, arXiv 2310.06522.
 *
 * @param {?number} accuracy in [0, 1]
 * @param {?number} joules zero or more
 * @param {{alpha: number, beta: number, unit: string}} scoring
 * @param {boolean} shifted log10(10 + E) instead of log10(E), which is finite for every energy
 * @returns {?number} null where it is undefined: without either number, outside their ranges, and, not shifted, at and
 *   below one unit
 */
export function sam(accuracy, joules, { alpha, beta, unit }, shifted) {
  if (!known(accuracy) || !known(joules) || accuracy < 0 || accuracy > 1 || joules < 0) return null;
  const energy = joules / J_PER[unit];
  if (!shifted && energy <= 1) return null;
  const score = (beta * accuracy ** alpha) / Math.log10(shifted ? 10 + energy : energy);
  return known(score) ? score : null;
}

const FLAT = 1.05;

/**
 * What SAM does not see of some runs in a unit: those at or below one unit, for which it is undefined, and whether the shifted
 * score's logarithm is the same for all of them although their energies differ, so that accuracy alone ranks them.
 */
export function blindness(rows, unit) {
  const energies = rows.filter((row) => known(row.accuracy) && known(row.joules)).map((row) => row.joules / J_PER[unit]);
  const [least, most] = [Math.min(...energies), Math.max(...energies)];
  const differ = energies.length > 1 && most > 1.1 * least;
  return {
    of: energies.length,
    undefined: energies.filter((energy) => energy <= 1).length,
    flat: differ && Math.log10(10 + most) < FLAT * Math.log10(10 + least),
  };
}

/** The largest unit in which SAM sees the energies of these runs; the smallest where none does. */
export function unitThatSees(rows) {
  const sees = (unit) => {
    const found = blindness(rows, unit);
    return !found.undefined && !found.flat;
  };
  return SAM_UNITS.find(sees) ?? SAM_UNITS.at(-1);
}

/** Rank by a value, the highest first; equal values share a rank, rows without one have none. */
export function ranks(rows, value) {
  const sorted = rows.filter((row) => known(value(row))).sort((a, b) => value(b) - value(a));
  const found = new Map();
  sorted.forEach((row, at) => {
    const before = sorted[at - 1];
    found.set(row, before && value(before) === value(row) ? found.get(before) : at + 1);
  });
  return found;
}

/** The rows that no other beats in accuracy for the same or less energy, by rising energy. */
export function paretoFront(rows) {
  const able = rows.filter((row) => known(row.joules) && known(row.accuracy) && row.joules > 0);
  able.sort((a, b) => a.joules - b.joules || b.accuracy - a.accuracy);
  const front = [];
  for (const row of able) if (!front.length || row.accuracy > front.at(-1).accuracy) front.push(row);
  return front;
}
