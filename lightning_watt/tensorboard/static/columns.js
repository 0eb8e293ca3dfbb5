// The columns of the table of runs: what each shows, sorts by and exports.

import { NONE, duration, energy, known, percent, sig } from "./format.js";

const SILENT_S = 600; // nothing written for so long: it was killed, or its steps are very long
const SETTING = "hparam:";

/**
 * `text(row, {state, unit})` is what a cell shows, `hint` what its heading says; `usual` columns are shown before anybody
 * chooses; a column `inUnit` has the unit of the energies in its heading.
 */
const FIXED = [
  { key: "rank", title: "#", down: false, number: true, usual: true, hint: "Rank by shifted SAM among the runs shown; = is a tie. Measured and other energies are ranked apart", text: rank },
  { key: "moved", title: "Δ", down: true, number: true, usual: true, hint: "Places won or lost against α = β = 5 with E in kWh", text: moved },
  { key: "label", title: "Run", down: false, usual: true, fixed: true, hint: "A run's name without what all names share", text: (row) => row.name },
  { key: "accuracy", title: "Accuracy, %", down: true, number: true, usual: true, hint: "The last one", text: (row) => percent(row.accuracy), more: (row) => (known(row.accuracy) ? `${row.metric ?? ""} ${row.accuracy}` : "No accuracy was logged") },
  { key: "joules", title: "Energy", down: false, number: true, usual: true, inUnit: true, hint: "Of all stages and devices", text: (row, { unit }) => (known(row.joules) ? sig(row.joules / unit.size) : NONE), more: (row) => energy(row.joules) },
  { key: "uncertainty_j", title: "±", down: false, number: true, usual: true, inUnit: true, hint: "Counter edges and the sensor's scale", text: (row, { unit }) => (known(row.uncertainty_j) ? sig(row.uncertainty_j / unit.size, 2) : NONE), more: (row) => (known(row.uncertainty_j) ? `${percent(row.uncertainty_j / row.joules)} %` : "It is not known") },
  { key: "sam", title: "SAM", down: true, number: true, usual: true, hint: "β · accuracy^α / log₁₀ E; undefined where E is one unit or less", text: samText, more: samWhy },
  { key: "shifted", title: "SAM shifted", down: true, number: true, usual: true, hint: "β · accuracy^α / log₁₀(10 + E), finite for every energy", text: (row) => sig(row.shifted) },
  { key: "perSample", title: "J/sample", down: false, number: true, hint: "Of the training stage", text: (row) => sig(row.perSample) },
  { key: "seconds", title: "Time", down: false, number: true, hint: "Of all stages", text: (row) => duration(row.seconds) },
  { key: "boards", title: "Devices", down: false, hint: "What was measured", text: (row) => row.boards || NONE },
  { key: "co2e_g", title: "CO2e, g", down: false, number: true, hint: "Of the run's own energy, where its carbon intensity was given", text: (row) => sig(row.co2e_g) },
  { key: "cost", title: "Cost", down: false, number: true, hint: "Of the run's own energy, in the currency of its price", text: (row) => sig(row.cost) },
  { key: "wasted_j", title: "Wasted", down: true, number: true, inUnit: true, hint: "Used after checkpoints from which the run was resumed", text: (row, { unit }) => (row.wasted_j ? sig(row.wasted_j / unit.size) : NONE) },
  { key: "provenance", title: "Provenance", down: false, usual: true, hint: "Measured by counters, or estimated; do not compare the two", text: (row) => row.provenance ?? "not known yet", more: (row) => row.problem ?? "" },
  { key: "status", title: "Status", down: false, usual: true, hint: "Of the run", text: (row) => (isSilent(row) ? `silent for ${duration(row.silentS)}` : (row.status ?? NONE)) },
];

export const USUAL = FIXED.filter((column) => column.usual).map((column) => column.key);

/** All columns that there are, those of the hyper-parameters (by name) last. */
export const allColumns = (settings) => [...FIXED, ...settings.map(settingColumn)];

function settingColumn(name) {
  const text = (row) => row.settings.get(name) ?? NONE;
  return { key: SETTING + name, title: name, down: false, hint: `The hyper-parameter ${name}`, text };
}

/** The chosen columns, in the order in which they stand. */
export function chosenColumns(keys, settings) {
  const chosen = new Set(keys);
  return allColumns(settings).filter((column) => column.fixed || chosen.has(column.key));
}

/** What a row is sorted by in a column; null without a value. */
export function valueOf(row, key) {
  return (key.startsWith(SETTING) ? row.settings.get(key.slice(SETTING.length)) : row[key]) ?? null;
}

export const headingOf = (column, unit) => (column.inUnit ? `${column.title}, ${unit.name}` : column.title);

export const isSilent = (row) => row.silentS > SILENT_S;

function rank(row) {
  if (!known(row.rank)) return NONE;
  return `${row.measured ? "" : "est. "}${row.rank}${row.tied ? "=" : ""}`;
}

function moved({ moved: places }) {
  if (!known(places) || places === 0) return "";
  return places > 0 ? `▲${places}` : `▼${-places}`;
}

const isUndefined = (row) => row.sam === null && known(row.accuracy) && known(row.joules);

function samText(row, { state }) {
  return isUndefined(row) ? `E ≤ 1 ${state.scoring.unit}` : sig(row.sam);
}

function samWhy(row, { state }) {
  return isUndefined(row) ? `E is ${energy(row.joules)}: SAM has a pole at 1 ${state.scoring.unit} and would be negative below` : "";
}
