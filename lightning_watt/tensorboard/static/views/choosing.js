// Which columns the table has.

import { USUAL, allColumns, headingOf } from "../columns.js";
import { checkbox, el } from "../dom.js";

export function columnChoice(store) {
  const list = el("div", { class: "list" });
  const reset = el("button", { type: "button", class: "quiet", on: { click: () => store.set({ columns: USUAL }) } }, "the usual ones");
  const root = el("details", { class: "menu" }, el("summary", {}, "Columns"), el("div", { class: "sheet" }, list, reset));
  root.addEventListener("keydown", (event) => event.key === "Escape" && (root.open = false));
  let offered = "";
  let boxes = new Map();

  function toggle(key, on) {
    const without = store.state.columns.filter((one) => one !== key);
    store.set({ columns: on ? [...without, key] : without });
  }

  function update(state, { keys, unit }) {
    const columns = allColumns(keys).filter((column) => !column.fixed);
    const now = JSON.stringify(columns.map((column) => headingOf(column, unit)));
    if (now !== offered) {
      offered = now;
      boxes = new Map(columns.map((column) => [column.key, checkbox(headingOf(column, unit), false, (on) => toggle(column.key, on), { title: column.hint })]));
      list.replaceChildren(...boxes.values());
    }
    for (const [key, box] of boxes) box.querySelector("input").checked = state.columns.includes(key);
  }
  return { root, update };
}
