// What a run's curves are drawn over: time, steps, epochs or energy.

import { energyUnit, known, timeUnit } from "./format.js";

export const OVER = ["time", "steps", "epochs", "energy"];

/** The last value of a curve at or before a step; null before its first one. */
function at(curve, step) {
  let [low, high] = [0, curve.step.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (curve.step[middle] <= step) low = middle + 1;
    else high = middle;
  }
  return low ? curve.v[low - 1] : null;
}

/** When a run began, unix seconds: by its record, or its first row. */
function began(row, curves) {
  const firsts = [curves.energy, ...Object.values(curves.power)].filter((curve) => curve.t.length).map((curve) => curve.t[0]);
  return Math.min(...firsts, known(row.started_unix) ? row.started_unix : Infinity);
}

/**
 * The places of a curve's points.
 *
 * @param {string} over one of OVER
 * @param {{row: Object, curves: Object, curve: {t: number[], step: number[], v: number[]}}[]} drawn
 * @returns {{title: string, unit: string, places: number[][]}} one list of places for each curve, in the unit of the title
 */
export function placesOver(over, drawn) {
  const raw = drawn.map(({ row, curves, curve }) => {
    if (over === "steps") return curve.step;
    if (over === "epochs") return curve.step.map((step) => at(curves.epoch, step));
    if (over === "energy") return curve.step.map((step) => at(curves.energy, step));
    const from = began(row, curves);
    return curve.t.map((unix) => unix - from);
  });
  const ends = raw.map((places) => places.at(-1));
  const scaled = (size) => raw.map((places) => places.map((place) => (known(place) ? place / size : null)));
  if (over === "time") {
    const unit = timeUnit(ends);
    return { title: `Time since the run began, ${unit.name}`, unit: unit.name, places: scaled(unit.size) };
  }
  if (over === "energy") {
    const unit = energyUnit(ends);
    return { title: `Energy so far, ${unit.name}`, unit: unit.name, places: scaled(unit.size) };
  }
  return over === "steps" ? { title: "Step", unit: "steps", places: raw } : { title: "Epoch", unit: "epochs", places: raw };
}
