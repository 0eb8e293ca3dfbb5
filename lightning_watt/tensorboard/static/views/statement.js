// A run in words for a paper, with a button to copy each form.

import { fetchStatement } from "../api.js";
import { el, say } from "../dom.js";

const FORMS = [
  ["text", "Text"],
  ["latex", "LaTeX"],
  ["bibtex", "BibTeX"],
  ["model_card", "Model card"],
];

/** A button, and the place below it where the statement of a run appears. */
export function statementOf(name) {
  const place = el("div", { class: "statement", "aria-live": "polite" });
  const button = el("button", { type: "button", class: "quiet", on: { click: ask } }, "Statement for a paper");

  async function ask() {
    button.disabled = true;
    try {
      const found = await fetchStatement(name);
      const parts = FORMS.flatMap(([key, title]) => [el("h3", {}, title, " ", copy(found[key])), el("pre", {}, el("code", {}, found[key]))]);
      place.replaceChildren(...(found.problem ? [el("p", {}, found.problem)] : parts));
    } catch (error) {
      place.replaceChildren(el("p", {}, `The statement cannot be read: ${error.message}`));
    }
    button.disabled = false;
  }
  return el("section", {}, button, place);
}

function copy(text) {
  const button = el("button", { type: "button", class: "quiet", on: { click } }, "Copy");
  async function click() {
    try {
      await navigator.clipboard.writeText(text);
      say(button, "Copied");
    } catch {
      say(button, "Select it, and copy by hand"); // a page that is not on this machine and not encrypted has no clipboard
    }
  }
  return button;
}
