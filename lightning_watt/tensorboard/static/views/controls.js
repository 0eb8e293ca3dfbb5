// The bar above everything: SAM's alpha, beta and unit, whether inherited energy counts, and how fresh the numbers are.

import { checkbox, choice, el, say } from "../dom.js";
import { energy, known } from "../format.js";
import { SAM_UNITS } from "../metric.js";
import { DEFAULT_SCORING } from "../state.js";

export function controls(store, live) {
  const alpha = slider("alpha", "α", 0, 10, "How much accuracy counts: SAM = β · accuracy^α / log₁₀ E", (value) =>
    store.score({ alpha: value }),
  );
  const beta = slider("beta", "β", 0.5, 10, "SAM's scale; it changes no rank", (value) => store.score({ beta: value }));
  const unit = choice("E in", "unit", SAM_UNITS, (value) => store.score({ unit: value }));
  const reset = el(
    "button",
    { type: "button", class: "quiet", title: "α = β = 5, E in kWh: the paper's", on: { click: () => store.score(DEFAULT_SCORING) } },
    "Reset",
  );
  const inherited = checkbox("inherited energy", false, (on) => store.set({ inherited: on }), {
    title: "Add the energy of the runs that a run started from, such as its pretraining",
  });
  const summary = el("p", { class: "summary", role: "status" });
  const fresh = el("span", { class: "fresh" });
  const auto = checkbox("live", true, (on) => live(on), { title: "Look for new rows every few seconds" });
  const root = el(
    "div",
    { class: "controls", role: "group", "aria-label": "SAM and what counts" },
    el("strong", { class: "brand", title: "Sustainable-Accuracy Metric, arXiv 2310.06522" }, "SAM"),
    alpha.root,
    beta.root,
    unit.bar,
    reset,
    inherited,
    el("span", { class: "gap" }),
    summary,
    auto,
    fresh,
  );

  function update(state, { rows }) {
    alpha.show(state.scoring.alpha);
    beta.show(state.scoring.beta);
    unit.show(state.scoring.unit);
    const total = rows.reduce((sum, row) => sum + (known(row.joules) ? row.joules : 0), 0);
    say(summary, `${rows.length} ${rows.length === 1 ? "run" : "runs"}, ${energy(total)}`);
  }

  /** Says when the numbers came, or why none come. */
  function tell(text, bad) {
    say(fresh, text);
    fresh.classList.toggle("bad", bad);
  }
  return { root, update, tell };
}

function slider(id, label, min, max, title, onInput) {
  const value = el("output", { for: id });
  const input = el("input", { type: "range", id, min, max, step: 0.1, on: { input: () => onInput(Number(input.value)) } });
  const root = el("label", { class: "slider", title }, el("span", {}, label), input, value);
  const show = (number) => {
    // Not while it is dragged: a value outside the slider's range, from a run's record, is shown and not forced into it.
    if (Number(input.value) !== number) input.value = String(number);
    say(value, Number(number.toFixed(2)).toString());
  };
  return { root, show };
}
