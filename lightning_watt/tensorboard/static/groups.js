// Groups of runs, by a hyper-parameter, by all but the seed, or by a regular expression; and the mean of each group.

import { known } from "./format.js";

export const NO_GROUP = { by: "", pattern: "" };
export const BUT_SEED = "*";
export const BY_NAME = "/";
const IS_SEED = /(^|[/_.])seed$/i;
const IN_NAME = /(?:^|[/,\s])(?:\d+-)?([A-Za-z_][\w.]*)=([^/,\s]+)/g;

/** A run's hyper-parameters as text: those of its record, and those that its name tells, as Hydra's do. */
export function settingsOf(run) {
  const named = [...run.name.matchAll(IN_NAME)].map(([, key, value]) => [key, value]);
  const recorded = Object.entries(run.hparams ?? {}).map(([key, value]) => [key, String(value)]);
  return new Map([...named, ...recorded]);
}

/** The hyper-parameters that differ among runs, by name. */
export function differing(settings) {
  const values = new Map();
  for (const one of settings) for (const [key, value] of one) values.set(key, (values.get(key) ?? new Set()).add(value));
  return [...values].filter(([, found]) => found.size > 1).map(([key]) => key).sort();
}

/** @returns {function(Object, Map): ?string} the group of a run, null where it has none; and null for no groups at all */
export function grouping({ by, pattern }, keys) {
  if (by === "") return null;
  const told = (settings, names) =>
    names.filter((key) => settings.has(key)).map((key) => `${key} ${settings.get(key)}`).join(", ") || null;
  if (by === BUT_SEED) {
    const names = keys.filter((key) => !IS_SEED.test(key));
    return (run, settings) => told(settings, names) ?? "all";
  }
  if (by !== BY_NAME) return (run, settings) => told(settings, [by]);
  let expression = null;
  try {
    expression = new RegExp(pattern || ".^");
  } catch {
    return () => null; // half typed
  }
  return (run) => {
    const found = expression.exec(run.name);
    return found ? (found[1] ?? found[0]) : null;
  };
}

/** Mean and standard deviation (of a sample, so null for one value). */
export function meanOf(values) {
  const there = values.filter(known);
  if (!there.length) return { n: 0, mean: null, sd: null };
  const mean = there.reduce((sum, value) => sum + value, 0) / there.length;
  const squares = there.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { n: there.length, mean, sd: there.length > 1 ? Math.sqrt(squares / (there.length - 1)) : null };
}

/** The groups of rows, measured and other energies apart: each with its rows and the means of them. */
export function groupsOf(rows) {
  const found = new Map();
  for (const row of rows.filter((row) => row.group !== null)) {
    const key = JSON.stringify([row.group, row.measured]);
    if (!found.has(key)) found.set(key, { name: row.group, measured: row.measured, colour: row.colour, rows: [] });
    found.get(key).rows.push(row);
  }
  return [...found.values()].map((group) => ({
    ...group,
    accuracy: meanOf(group.rows.map((row) => row.accuracy)),
    joules: meanOf(group.rows.map((row) => row.joules)),
    shifted: meanOf(group.rows.map((row) => row.shifted)),
  }));
}
