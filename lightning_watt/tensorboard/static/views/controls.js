// The bar above everything: SAM's alpha, beta and unit, whether inherited energy counts, and how fresh the numbers are.

import { checkbox, choice, el, say, tick } from "../dom.js";
import { energy, known } from "../format.js";
import { SAM_UNITS, blindness, unitThatSees } from "../metric.js";
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
  const blind = el("p", { class: "blind", role: "status" });
  const sentence = el("span", {});
  const offer = el("button", { type: "button", class: "quiet", on: { click: () => store.score({ unit: offer.value }) } });
  blind.append(sentence, " ", offer);
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
    formula(),
    reset,
    inherited,
    el("span", { class: "gap" }),
    summary,
    auto,
    fresh,
    blind,
  );

  function update(state, { rows }) {
    alpha.show(state.scoring.alpha);
    beta.show(state.scoring.beta);
    tick(inherited, state.inherited);
    unit.show(state.scoring.unit);
    const told = blindSentence(blindness(rows, state.scoring.unit), state.scoring.unit);
    const better = unitThatSees(rows);
    blind.hidden = told === "";
    say(sentence, told);
    offer.hidden = better === state.scoring.unit;
    offer.value = better;
    say(offer, `Take E in ${better}`);
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

function formula() {
  return el(
    "span",
    { class: "formula", title: "SAM; its shifted form, finite for every energy, has 10 + E in place of E" },
    "β · accuracy",
    el("sup", {}, "α"),
    " / log",
    el("sub", {}, "10"),
    " E",
  );
}

/** What SAM cannot say of the runs shown; empty if nothing. */
export function blindSentence({ of, undefined: undefinedFor, flat }, unit) {
  const parts = [];
  if (undefinedFor) parts.push(`SAM is undefined for ${undefinedFor === of ? (of === 1 ? "this run" : `all ${of} runs`) : `${undefinedFor} of ${of} runs`}`);
  if (flat) parts.push(`${parts.length ? "" : "SAM's "}shifted ${parts.length ? "SAM " : "form "}ranks by accuracy alone`);
  return parts.length ? `With E in ${unit} ${parts.join(", and ")}: they used too little of it.` : "";
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
