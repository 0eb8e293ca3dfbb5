// What stands in the place of the charts where no run is shown, and how to show some.

import { el, say } from "../dom.js";

export function nothing(store) {
  const sentence = el("p", {});
  const all = el("button", { type: "button", class: "quiet", on: { click: () => store.set({ filter: "", hidden: new Set() }) } }, "Show all runs");
  const root = el("section", { class: "nothing", role: "status" }, sentence, all);

  function update(state, { listed, rows }) {
    root.hidden = rows.length > 0;
    root.parentElement?.classList.toggle("none", rows.length === 0);
    const runs = state.runs.length;
    const why = listed.length ? `None of the ${listed.length} runs in the list is ticked.` : `No run's name matches “${state.filter}”, of ${runs}.`;
    say(sentence, root.hidden ? "" : why);
  }
  return { root, update };
}
