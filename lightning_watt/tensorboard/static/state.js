// What the person has chosen and what the server has answered; everything that is drawn is derived from the two here.

import { energyUnit, known, shortNames } from "./format.js";
import { paretoFront, ranks, sam } from "./metric.js";
import { withInherited } from "./plus_minus.js";

export const DEFAULT_SCORING = { alpha: 5, beta: 5, unit: "kWh" };
const PALETTE_SIZE = 10;

export class Store {
  constructor() {
    this.state = {
      runs: null,
      nowUnix: 0,
      where: "",
      curves: {},
      hidden: new Set(),
      filter: "",
      scoring: DEFAULT_SCORING,
      scoringChosen: false,
      sort: { key: "shifted", down: true },
      inherited: false,
      logEnergy: true,
      paths: false,
      shares: false,
      focus: null,
      theme: "light",
    };
    this.listeners = [];
    this.colours = new Map();
  }

  subscribe(listener) {
    this.listeners.push(listener);
  }

  set(patch) {
    Object.assign(this.state, patch);
    const model = derive(this.state, this.colours);
    for (const listener of this.listeners) listener(this.state, model);
  }

  /** Takes the server's answer; until the person moves a slider, SAM is scored as the runs themselves were. */
  takeRuns({ runs, now_unix: nowUnix, where }) {
    runs.sort(byName);
    for (const { name } of runs) if (!this.colours.has(name)) this.colours.set(name, this.colours.size % PALETTE_SIZE);
    const scoring = this.state.scoringChosen ? this.state.scoring : commonScoring(runs);
    this.set({ runs, nowUnix, where, scoring });
  }

  score(patch) {
    this.set({ scoring: { ...this.state.scoring, ...patch }, scoringChosen: true });
  }
}

/** What all runs were scored with, or the usual where they differ or do not say. */
function commonScoring(runs) {
  const logged = runs.filter((run) => run.unit !== null).map(({ alpha, beta, unit }) => ({ alpha, beta, unit }));
  const same = logged.length && logged.every((one) => JSON.stringify(one) === JSON.stringify(logged[0]));
  return same ? logged[0] : DEFAULT_SCORING;
}

/** A filter as TensorBoard's: a regular expression; one that is half typed matches as plain text. */
export function matcher(filter) {
  try {
    const expression = new RegExp(filter, "i");
    return (name) => expression.test(name);
  } catch {
    return (name) => name.toLowerCase().includes(filter.toLowerCase());
  }
}

/**
 * @returns {{listed: Object[], rows: Object[], fronts: Object[], unit: {name: string, size: number}, mixed: boolean}}
 *   `listed` are the runs that pass the filter, `rows` those of them that are ticked, sorted as the table is; `fronts` one
 *   Pareto front for measured and one for other energies.
 */
function derive(state, colours) {
  const runs = state.runs ?? [];
  const short = shortNames(runs.map((run) => run.name));
  const passes = matcher(state.filter);
  const listed = runs.filter((run) => passes(run.name)).map((run) => toRow(run, state, colours, short));
  const rows = listed.filter((row) => !state.hidden.has(row.name));
  const now = ranks(rows, (row) => row.shifted);
  const usual = ranks(rows, (row) => sam(row.accuracy, row.joules, DEFAULT_SCORING, true));
  for (const row of rows) {
    row.rank = now.get(row) ?? null;
    row.moved = row.rank === null ? null : usual.get(row) - row.rank;
  }
  sortRows(rows, state.sort);
  const groups = [rows.filter((row) => row.measured), rows.filter((row) => !row.measured)];
  const fronts = groups.map((group, at) => ({ measured: at === 0, rows: paretoFront(group) })).filter((f) => f.rows.length);
  const kinds = new Set(rows.filter((row) => known(row.joules)).map((row) => row.measured));
  return { listed, rows, fronts, unit: energyUnit(rows.map((row) => row.joules)), mixed: kinds.size > 1 };
}

function toRow(run, state, colours, short) {
  const inherited = state.inherited ? run.inherited_j : 0;
  const sum = known(run.joules) ? run.joules + inherited : null;
  const joules = known(sum) && sum >= 0 ? sum : null;
  const accuracy = known(run.accuracy) && run.accuracy >= 0 && run.accuracy <= 1 ? run.accuracy : null;
  return {
    ...run,
    joules,
    uncertainty_j: inherited ? withInherited(run) : run.uncertainty_j,
    accuracy,
    label: short.get(run.name),
    colour: colours.get(run.name),
    measured: run.provenance === "measured",
    silentS: run.status === "running" && known(run.seen_unix) ? state.nowUnix - run.seen_unix : 0,
    sam: sam(accuracy, joules, state.scoring, false),
    shifted: sam(accuracy, joules, state.scoring, true),
  };
}

/** "seed_2" before "seed_10"; one collator for all, because making one takes longer than comparing with it. */
const { compare } = new Intl.Collator(undefined, { numeric: true });
const byName = (a, b) => compare(a.name, b.name);

/** Sorts in place by a column; rows without a value stay at the end either way. */
function sortRows(rows, { key, down }) {
  const sign = down ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    const missing = (x === null) - (y === null);
    if (missing) return missing;
    const order = typeof x === "string" ? compare(x, y) : x - y;
    return sign * order || byName(a, b);
  });
}
