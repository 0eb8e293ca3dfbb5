// What is uncertain of a sum of energies. The rule is that of lightning_watt/record/plus_minus.py; a browser test holds the two
// together.

import { known } from "./format.js";

/**
 * @param {{boundary: ?number, gain: ?number}[]} parts joules: what the edges make of each ±, and what the sensors' scales make
 * @returns {?number} joules; null if it is not known of one of them
 */
export function together(parts) {
  if (!parts.every(({ boundary, gain }) => known(boundary) && known(gain))) return null;
  const gain = parts.reduce((sum, part) => sum + part.gain, 0);
  return Math.hypot(gain, ...parts.map((part) => part.boundary));
}

export const ownParts = (run) => ({ boundary: run.boundary_j, gain: run.gain_j });

/** The ± of a run and of those that it started from. */
export const withInherited = (run) =>
  together([ownParts(run), { boundary: run.inherited_boundary_j, gain: run.inherited_gain_j }]);
