// The list of runs: what TensorBoard's own list does for its tabs, because a plugin does not learn what is ticked there.

import { checkbox, el, nameOf, say } from "../dom.js";
import { groupingChoice } from "./grouping.js";
import { runColour } from "../palette.js";

export function runList(store) {
  const filter = el("input", {
    type: "search",
    placeholder: "Filter runs (regex)",
    "aria-label": "Filter runs by a regular expression",
    spellcheck: "false",
    on: { input: () => store.set({ filter: filter.value }) },
  });
  const all = checkbox("all", true, (on) => {
    const hidden = new Set(store.state.hidden);
    for (const name of names) on ? hidden.delete(name) : hidden.add(name);
    store.set({ hidden });
  });
  const count = el("span", { class: "count" });
  const list = el("ul", {});
  const group = groupingChoice(store);
  const none = el("p", { class: "none", role: "status" });
  const root = el(
    "nav",
    { class: "runs", "aria-label": "Runs" },
    filter,
    group.root,
    el("div", { class: "head" }, all, count),
    none,
    list,
  );
  let names = [];
  let items = new Map();

  function update(state, model) {
    const { listed, rows } = model;
    group.update(state, model);
    if (filter.value !== state.filter) filter.value = state.filter;
    const next = listed.map((row) => row.name);
    if (next.length !== names.length || next.some((name, at) => name !== names[at])) {
      items = new Map(listed.map((row) => [row.name, items.get(row.name) ?? item(row, store)]));
      list.replaceChildren(...[...items.values()].map(({ root }) => root));
      names = next;
    }
    for (const row of listed) items.get(row.name).update(row, state);
    const box = all.querySelector("input");
    box.checked = rows.length === listed.length;
    box.indeterminate = rows.length > 0 && rows.length < listed.length;
    say(count, `${rows.length} of ${state.runs?.length ?? 0}`);
    say(none, listed.length ? "" : `No run's name matches “${state.filter}”.`);
  }
  return { root, update };
}

function item(row, store) {
  const box = el("input", {
    type: "checkbox",
    on: {
      change: () => {
        const hidden = new Set(store.state.hidden);
        box.checked ? hidden.delete(row.name) : hidden.add(row.name);
        store.set({ hidden });
      },
    },
  });
  const dot = swatch();
  const name = nameOf(row.name);
  const root = el("li", {}, el("label", {}, box, dot.root, name.root));
  const update = (now, state) => {
    box.checked = !state.hidden.has(now.name);
    dot.update(now, state.theme);
    name.show(now.label);
  };
  return { root, update };
}

/** A run's colour: a disc for measured energy, a ring for any other, as in the charts. */
export function swatch() {
  const root = el("span", { class: "swatch", "aria-hidden": "true" });
  const update = (row, theme) => {
    root.style.setProperty("--colour", runColour(theme, row.colour));
    root.classList.toggle("open", !row.measured);
    root.classList.toggle("running", row.status === "running");
  };
  return { root, update };
}
