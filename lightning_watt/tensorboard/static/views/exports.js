// Saves the table as CSV and as LaTeX, as it stands.

import { el } from "../dom.js";
import { save, toCsv, toLatex } from "../export.js";

export function exports(store) {
  let shown = null;
  const button = (text, title, make) =>
    el("button", { type: "button", class: "quiet", title, on: { click: () => shown && make(...shown) } }, text);
  const root = el(
    "span",
    { class: "exports" },
    button("CSV", "Save the runs shown as CSV, energies in joules", (state, model) => save("watt.csv", toCsv(state, model), "text/csv")),
    button("LaTeX", "Save the table as it stands for a paper", (state, model) => save("watt.tex", toLatex(state, model), "text/x-tex")),
  );
  const update = (state, model) => (shown = [state, model]);
  return { root, update };
}
