// The runs as a table, ranked by the shifted SAM of the sliders' alpha, beta and unit; any column sorts.

import { chosenColumns, headingOf, isSilent } from "../columns.js";
import { card, el, nameOf, say } from "../dom.js";
import { columnChoice } from "./choosing.js";
import { exports } from "./exports.js";
import { swatch } from "./runs.js";

export function leaderboard(store) {
  const choosing = columnChoice(store);
  const saving = exports(store);
  const { root, body, note } = card("leaderboard", "SAM leaderboard", choosing.root, saving.root);
  const head = el("tr", {});
  const rowsBody = el("tbody", {});
  const table = el("table", { "aria-labelledby": "leaderboard-title" }, el("thead", {}, head), rowsBody);
  body.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "SAM leaderboard, scrolls" }, table));
  let heads = new Map();
  let lines = new Map();
  let drawn = "";

  function update(state, model) {
    const { rows, unit, mixed, keys } = model;
    choosing.update(state, model);
    saving.update(state, model);
    const columns = chosenColumns(state.columns, keys);
    const now = JSON.stringify(columns.map(({ key }) => key));
    if (now !== drawn) {
      drawn = now;
      heads = new Map(columns.map((column) => [column.key, header(column, store)]));
      head.replaceChildren(...[...heads.values()].map(({ cell }) => cell));
      lines = new Map();
    }
    for (const column of columns) {
      const { cell, button } = heads.get(column.key);
      const sorted = state.sort.key === column.key;
      cell.setAttribute("aria-sort", sorted ? (state.sort.down ? "descending" : "ascending") : "none");
      say(button, headingOf(column, unit));
    }
    lines = new Map(rows.map((row) => [row.name, lines.get(row.name) ?? line(row, columns, store)]));
    const shown = [...lines.values()];
    // Rows keep their elements, so that sorting and polling take neither focus nor selection away.
    if (shown.some(({ tr }, at) => rowsBody.children[at] !== tr) || rowsBody.children.length !== shown.length) {
      const active = document.activeElement;
      rowsBody.replaceChildren(...shown.map(({ tr }) => tr));
      if (rowsBody.contains(active)) active.focus();
    }
    rows.forEach((row, at) => {
      const { tr, update: put } = lines.get(row.name);
      tr.classList.toggle("apart", !row.measured && at > 0 && rows[at - 1].measured);
      put(row, state, unit);
    });
    const { alpha, beta, unit: samUnit } = state.scoring;
    const notes = [
      `α ${plain(alpha)}, β ${plain(beta)}, E in ${samUnit}${state.inherited ? ", inherited energy included" : ""}.`,
      mixed ? "Runs whose energy was not measured stand below the others, with ranks of their own: an estimate may be wrong by tens of percent." : "",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

function header({ key, number, hint, down }, store) {
  const click = () => {
    const { sort } = store.state;
    store.set({ sort: { key, down: sort.key === key ? !sort.down : down } });
  };
  const button = el("button", { type: "button", title: hint, on: { click } });
  return { cell: el("th", { scope: "col", class: number ? "number" : false, "data-key": key }, button), button };
}

function line(row, columns, store) {
  const cells = new Map(columns.map(({ key, number }) => [key, el("td", { class: number ? "number" : false, "data-key": key })]));
  const dot = swatch();
  const name = nameOf(row.name);
  const open = el(
    "button",
    { type: "button", class: "open-run", title: row.name, on: { click: () => store.set({ focus: row.name }) } },
    name.root,
  );
  const pick = el("input", {
    type: "checkbox",
    class: "pick",
    title: "Compare this run with another one",
    "aria-label": `Compare ${row.name}`,
    on: { change: () => store.compare(row.name, pick.checked) },
  });
  cells.get("label").append(el("span", { class: "run" }, pick, dot.root, open));
  const tr = el("tr", {}, ...cells.values());

  function update(now, state, unit) {
    dot.update(now, state.theme);
    name.show(now.label);
    pick.checked = state.compared.includes(now.name);
    tr.setAttribute("aria-current", now.name === state.focus ? "true" : "false");
    for (const { key, text, more } of columns) {
      if (key === "label") continue;
      const cell = cells.get(key);
      say(cell, text(now, { state, unit }));
      const title = more?.(now, { state, unit }) ?? "";
      if (cell.title !== title) cell.title = title;
    }
    cells.get("provenance")?.classList.toggle("quiet", !now.measured);
    cells.get("sam")?.classList.toggle("quiet", now.sam === null);
    const status = cells.get("status");
    if (status) status.dataset.status = isSilent(now) ? "silent" : (now.status ?? "");
  }
  return { tr, update };
}

const plain = (value) => String(Number(value.toFixed(3)));
