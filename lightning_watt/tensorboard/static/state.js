// What the person has chosen and what the server has answered; everything that is drawn is derived from the two here.

import { byRun } from "./api.js";
import { USUAL, valueOf } from "./columns.js";
import { energyUnit, known } from "./format.js";
import { NO_GROUP, differing, grouping, groupsOf, settingsOf } from "./groups.js";
import { paretoFront, ranks, sam } from "./metric.js";
import { shortNames, toldNames } from "./names.js";
import { withInherited } from "./plus_minus.js";

export const DEFAULT_SCORING = { alpha: 5, beta: 5, unit: "kWh" };

export class Store {
  constructor() {
    this.state = {
      runs: null,
      nowUnix: 0,
      where: "",
      curves: byRun({}),
      epochs: byRun({}),
      hidden: new Set(),
      filter: "",
      group: NO_GROUP,
      scoring: DEFAULT_SCORING,
      scoringChosen: false,
      columns: USUAL,
      compared: [],
      over: "time",
      sort: { key: "shifted", down: true },
      inherited: false,
      logEnergy: true,
      paths: false,
      shares: false,
      focus: null,
      theme: "light",
    };
    this.listeners = [];
    this.colours = new Colours();
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
    for (const { name } of runs) this.colours.of("run", name); // in the order of their names
    const scoring = this.state.scoringChosen ? this.state.scoring : commonScoring(runs);
    this.set({ runs, nowUnix, where, scoring });
  }

  /** Takes a run to the two that are compared, or away from them; the oldest gives way to a third. */
  compare(name, on) {
    const others = this.state.compared.filter((one) => one !== name);
    this.set({ compared: on ? [...others, name].slice(-2) : others });
  }

  score(patch) {
    this.set({ scoring: { ...this.state.scoring, ...patch }, scoringChosen: true });
  }
}

/** Numbers for colours, which a run or a group keeps as long as the page stands. */
class Colours {
  constructor() {
    this.numbers = new Map();
  }

  of(kind, name) {
    if (!this.numbers.has(kind)) this.numbers.set(kind, new Map());
    const known = this.numbers.get(kind);
    if (!known.has(name)) known.set(name, known.size);
    return known.get(name);
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
 * @returns {{listed: Object[], rows: Object[], keys: string[], groups: Object[], fronts: Object[], unit: Object, mixed: boolean}}
 *   `listed` are the runs that pass the filter, `rows` those of them that are ticked, sorted as the table is; `fronts` one
 *   Pareto front for measured and one for other energies; `keys` are the hyper-parameters that differ.
 */
function derive(state, colours) {
  const runs = state.runs ?? [];
  const settings = new Map(runs.map((run) => [run.name, settingsOf(run)]));
  const keys = differing([...settings.values()]);
  const labels = toldNames(shortNames(runs.map((run) => run.name)), settings, keys);
  const groupOf = grouping(state.group, keys);
  const passes = matcher(state.filter);
  const listed = runs
    .filter((run) => passes(run.name) || passes(labels.get(run.name)))
    .map((run) => {
      const group = groupOf?.(run, settings.get(run.name)) ?? null;
      // A run without a group is grey where others have one.
      const colour = groupOf === null ? colours.of("run", run.name) : group === null ? null : colours.of(JSON.stringify(state.group), group);
      return { ...toRow(run, state), settings: settings.get(run.name), group, colour, label: labels.get(run.name) };
    });
  const rows = listed.filter((row) => !state.hidden.has(row.name));
  const apart = [rows.filter((row) => row.measured), rows.filter((row) => !row.measured)];
  for (const kind of apart) rank(kind);
  sortRows(rows, state.sort);
  const fronts = apart.map((group, at) => ({ measured: at === 0, rows: paretoFront(group) })).filter((f) => f.rows.length);
  const kinds = new Set(rows.filter((row) => known(row.joules)).map((row) => row.measured));
  const groups = groupOf === null ? [] : groupsOf(rows);
  return { listed, rows, keys, groups, fronts, unit: energyUnit(rows.map((row) => row.joules)), mixed: kinds.size > 1 };
}

/** Ranks rows of one kind; equal scores share a rank. */
function rank(rows) {
  const now = ranks(rows, (row) => row.shifted);
  const usual = ranks(rows, (row) => sam(row.accuracy, row.joules, DEFAULT_SCORING, true));
  const shared = new Map();
  for (const place of now.values()) shared.set(place, (shared.get(place) ?? 0) + 1);
  for (const row of rows) {
    row.rank = now.get(row) ?? null;
    row.tied = shared.get(row.rank) > 1;
    row.moved = row.rank === null ? null : usual.get(row) - row.rank;
  }
}

function toRow(run, state) {
  const inherited = state.inherited ? run.inherited_j : 0;
  const sum = known(run.joules) ? run.joules + inherited : null;
  const joules = known(sum) && sum >= 0 ? sum : null;
  const accuracy = known(run.accuracy) && run.accuracy >= 0 && run.accuracy <= 1 ? run.accuracy : null;
  return {
    ...run,
    joules,
    own_j: known(run.joules) ? run.joules : 0,
    own_uncertainty_j: run.uncertainty_j,
    perSample: run.train_samples > 0 && known(run.by_stage.train) ? run.by_stage.train / run.train_samples : null,
    uncertainty_j: inherited ? withInherited(run) : run.uncertainty_j,
    accuracy,
    measured: run.provenance === "measured",
    silentS: run.status === "running" && known(run.seen_unix) ? state.nowUnix - run.seen_unix : 0,
    sam: sam(accuracy, joules, state.scoring, false),
    shifted: sam(accuracy, joules, state.scoring, true),
  };
}

/** "seed_2" before "seed_10"; one collator for all, because making one takes longer than comparing with it. */
const { compare } = new Intl.Collator(undefined, { numeric: true });
const byName = (a, b) => compare(a.name, b.name);

/** Sorts in place by a column, measured energies before others; rows without a value stay at the end either way. */
function sortRows(rows, { key, down }) {
  const sign = down ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [valueOf(a, key), valueOf(b, key)];
    const first = b.measured - a.measured || (x === null) - (y === null);
    if (first || x === null) return first || byName(a, b);
    const order = typeof x === "string" ? compare(x, y) : x - y;
    return sign * order || byName(a, b);
  });
}
