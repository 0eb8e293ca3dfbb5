// What all runs shown come to: energy, CO2e, cost, hours, and the best of them.

import { el, nameOf, say } from "../dom.js";
import { NONE, duration, energy, known, percent, sig } from "../format.js";
import { ownParts, together } from "../plus_minus.js";
import { totalOf } from "../totals.js";

export function tiles(store) {
  const made = {
    energy: tile("Energy", "Own energy of the runs shown; what a run inherited is another run's"),
    co2e: tile("CO2e", "Where a carbon intensity was given"),
    cost: tile("Cost", "Where an electricity price was given"),
    time: tile("Time", "Of all stages of the runs shown, added up"),
    best: tile("Best by shifted SAM", "Among the measured runs; among the others if none was measured"),
  };
  const name = nameOf("");
  const open = el("button", { type: "button", class: "best", on: { click: () => store.set({ focus: open.value }) } }, name.root);
  made.best.value.append(open);
  const root = el("section", { class: "tiles", "aria-label": "Totals" }, ...Object.values(made).map((one) => one.root));

  function update(state, { rows }) {
    const there = rows.filter((row) => known(row.joules));
    const { sum, share } = totalOf(there);
    const unsure = together(there.map(ownParts).map(({ boundary, gain }) => ({ boundary, gain: known(gain) ? gain * share : null })));
    put(made.energy, energy(sum), `± ${known(unsure) && there.length ? energy(unsure) : "unknown"}${share < 1 ? ", each joule once" : ""}`);
    put(made.co2e, ...sumOf(there, "co2e_g", (grams) => (grams >= 1000 ? `${sig(grams / 1000)} kg` : `${sig(grams)} g`)));
    put(made.cost, ...sumOf(there, "cost", sig));
    const times = rows.map((row) => row.seconds).filter(known);
    put(made.time, times.length ? duration(times.reduce((a, b) => a + b, 0)) : NONE, "");
    const best = rows.find((row) => row.rank === 1 && row.measured) ?? rows.find((row) => row.rank === 1);
    made.best.root.hidden = best === undefined;
    if (best === undefined) return;
    open.value = best.name;
    open.title = best.name;
    name.root.title = best.name;
    name.show(best.label);
    say(made.best.more, `${percent(best.accuracy)} % for ${energy(best.joules)}`);
  }
  return { root, update };
}

function tile(title, hint) {
  const value = el("p", { class: "value" });
  const more = el("p", { class: "more" });
  return { root: el("div", { class: "tile", title: hint }, el("h2", {}, title), value, more), value, more };
}

function put(one, text, more) {
  one.root.hidden = text === NONE;
  say(one.value, text);
  say(one.more, more);
}

/** The sum of what goes with the energy, each joule once. */
function sumOf(rows, key, format) {
  const there = rows.filter((row) => known(row[key]) && row.own_j > 0);
  if (!there.length) return [NONE, ""];
  const { sum } = totalOf(there, (row) => row[key] / row.own_j);
  return [format(sum), there.length < rows.length ? `of ${there.length} of ${rows.length} runs` : ""];
}
