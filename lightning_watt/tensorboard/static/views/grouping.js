// How runs are coloured and put together: by one of their hyper-parameters, by all but the seed, or by a regular expression.

import { el } from "../dom.js";
import { BUT_SEED, BY_NAME } from "../groups.js";

export function groupingChoice(store) {
  const select = el("select", { id: "group", on: { change: () => choose({ by: select.value }) } });
  const pattern = el("input", {
    type: "text",
    placeholder: "e.g. model=(\\w+)",
    "aria-label": "Group runs by what a regular expression finds in their names",
    title: "A run's group is what the expression finds in its name, or the part in brackets",
    spellcheck: "false",
    on: { input: () => choose({ pattern: pattern.value }) },
  });
  const root = el("div", { class: "grouping" }, el("label", { for: "group" }, "Group and colour by"), select, pattern);
  let offered = "";

  function choose(patch) {
    store.set({ group: { ...store.state.group, ...patch } });
  }

  function update({ group }, { keys }) {
    const chosen = [group.by].filter((by) => ![BUT_SEED, BY_NAME, "", ...keys].includes(by)); // of another directory
    const options = [["", "run"], [BUT_SEED, "all but the seed"], ...[...keys, ...chosen].map((key) => [key, key]), [BY_NAME, "regular expression"]];
    if (JSON.stringify(options) !== offered) {
      offered = JSON.stringify(options);
      select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    }
    select.value = group.by;
    pattern.hidden = group.by !== BY_NAME;
    if (pattern.value !== group.pattern) pattern.value = group.pattern;
  }
  return { root, update };
}
