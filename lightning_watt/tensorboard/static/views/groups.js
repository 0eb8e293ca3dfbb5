// The mean and the standard deviation of each group of runs, such as the seeds of one recipe.

import { card, el, say } from "../dom.js";
import { NONE, known, percent, sig } from "../format.js";
import { swatch } from "./runs.js";

const HEADS = ["Group", "Runs", "Accuracy, %", "Energy", "SAM shifted"];

export function groupMeans() {
  const { root, body, note } = card("groups", "Means by group");
  const heads = HEADS.map((text, at) => el("th", { scope: "col", class: at ? "number" : false }, text));
  const lines = el("tbody", {});
  const table = el("table", { "aria-labelledby": "groups-title" }, el("thead", {}, el("tr", {}, ...heads)), lines);
  body.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Means by group, scrolls" }, table));

  function update(state, { groups, rows, unit }) {
    root.hidden = state.group.by === "";
    if (root.hidden) return;
    say(heads[3], `Energy, ${unit.name}`);
    const sorted = [...groups].sort((a, b) => (b.shifted.mean ?? -1) - (a.shifted.mean ?? -1));
    lines.replaceChildren(...sorted.map((group) => line(group, state, unit)));
    const without = rows.filter((row) => row.group === null).length;
    const notes = [
      groups.length ? "Mean ± standard deviation over the runs of a group. Measured and other energies are apart." : "No run is in a group.",
      without ? `${without} of ${rows.length} runs ${without === 1 ? "is" : "are"} in none, and grey.` : "",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

function line(group, state, unit) {
  const dot = swatch();
  dot.update(group, state.theme);
  const cells = [
    String(group.rows.length),
    spread(group.accuracy, percent),
    spread(group.joules, (joules) => sig(joules / unit.size)),
    spread(group.shifted, sig),
  ];
  const name = group.measured ? group.name : `${group.name} (not measured)`;
  return el(
    "tr",
    {},
    el("td", {}, el("span", { class: "run" }, dot.root, name)),
    ...cells.map((text) => el("td", { class: "number" }, text)),
  );
}

/** "81.2 ± 0.4"; without a deviation where there is one value. */
function spread({ mean, sd }, format) {
  return known(mean) ? `${format(mean)}${known(sd) ? ` ± ${format(sd)}` : ""}` : NONE;
}
