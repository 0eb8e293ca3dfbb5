// Two runs side by side: how they differ, by how much that is uncertain, and whether they can be told apart.

import { fetchComparison } from "../api.js";
import { card, el, say } from "../dom.js";
import { NONE, duration, energy, known, percent, sig } from "../format.js";
import { swatch } from "./runs.js";

const FACTS = [
  ["Energy", (row) => energy(row.own_j)],
  ["±", (row) => energy(row.own_uncertainty_j)],
  ["Inherited", (row) => (row.inherited_j ? energy(row.inherited_j) : NONE)],
  ["Accuracy", (row) => (known(row.accuracy) ? `${percent(row.accuracy)} %` : NONE)],
  ["SAM shifted", (row) => sig(row.shifted)],
  ["J/sample", (row) => sig(row.perSample)],
  ["Time", (row) => duration(row.seconds)],
  ["Devices", (row) => row.boards || NONE],
  ["Provenance", (row) => row.provenance ?? NONE],
  ["Status", (row) => row.status ?? NONE],
];

export function comparison(store) {
  const shut = el("button", { type: "button", class: "quiet", on: { click: () => store.set({ compared: [] }) } }, "Close");
  const { root, body, note } = card("compare", "Two runs compared", shut);
  const verdict = el("p", { class: "verdict", role: "status" });
  const why = el("p", {});
  const heads = el("tr", {});
  const lines = el("tbody", {});
  body.append(verdict, why, el("div", { class: "scroll" }, el("table", {}, el("thead", {}, heads), lines)));
  let asked = "";

  function update(state, { listed }) {
    const rows = state.compared.map((name) => listed.find((row) => row.name === name)).filter(Boolean);
    root.hidden = rows.length === 0;
    if (root.hidden) {
      asked = "";
      return;
    }
    heads.replaceChildren(el("td", {}), ...rows.map((row) => head(row, state)));
    lines.replaceChildren(...FACTS.map(([name, text]) => el("tr", {}, el("th", { scope: "row" }, name), ...rows.map((row) => el("td", {}, text(row))))));
    say(note, rows.length < 2 ? "" : "The difference is of the runs' own energy, as of their last records.");
    if (rows.length < 2) {
      asked = "";
      say(verdict, "Tick a second run in the table to compare it with this one.");
      say(why, "");
      return;
    }
    const now = JSON.stringify(rows.map((row) => [row.name, row.seen_unix]));
    if (now === asked) return;
    asked = now;
    fetchComparison(rows.map((row) => row.name))
      .then((found) => asked === now && tell(found, rows))
      .catch((error) => asked === now && say(verdict, `They cannot be compared: ${error.message}`));
  }

  function tell({ joules, plus_minus_j: unsure, is_sure: isSure, verdict: words, why: reason, problem }, [first, second]) {
    root.dataset.sure = String(isSure ?? "");
    if (problem) {
      say(verdict, problem);
      say(why, "");
      return;
    }
    const share = first.own_j > 0 ? ` (${joules >= 0 ? "+" : "−"}${sig((100 * Math.abs(joules)) / first.own_j, 2)} %)` : "";
    say(verdict, `${words}: ${second.label} used ${energy(Math.abs(joules))} ± ${energy(unsure)} ${joules >= 0 ? "more" : "less"}${share}.`);
    const unfinished = first.status !== "completed" || second.status !== "completed";
    say(why, `${reason}${unfinished ? " Not both of them completed: what they did may differ too." : ""}`);
  }
  return { root, update };
}

function head(row, state) {
  const dot = swatch();
  dot.update(row, state.theme);
  return el("th", { scope: "col", title: row.name }, el("span", { class: "run" }, dot.root, row.label));
}
