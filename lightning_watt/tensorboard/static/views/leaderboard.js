// The runs as a table, ranked by the shifted SAM of the sliders' alpha, beta and unit; any column sorts.

import { card, el, nameOf, say } from "../dom.js";
import { NONE, duration, energy, known, percent, sig } from "../format.js";
import { swatch } from "./runs.js";

const SILENT_S = 600; // nothing written for so long: it was killed, or its steps are very long

const COLUMNS = [
  { key: "rank", title: "#", down: false, number: true, hint: "Rank by shifted SAM among the runs shown" },
  { key: "moved", title: "Δ", down: true, number: true, hint: "Places won or lost against α = β = 5 with E in kWh" },
  { key: "label", title: "Run", down: false, hint: "A run's name without what all names share" },
  { key: "accuracy", title: "Accuracy, %", down: true, number: true, hint: "The last one" },
  { key: "joules", title: "Energy", down: false, number: true, hint: "Of all stages and devices" },
  { key: "uncertainty_j", title: "±", down: false, number: true, hint: "Counter edges and the sensor's scale" },
  { key: "sam", title: "SAM", down: true, number: true, hint: "β · accuracy^α / log₁₀ E; undefined where E is one unit or less" },
  { key: "shifted", title: "SAM shifted", down: true, number: true, hint: "β · accuracy^α / log₁₀(10 + E), finite for every energy" },
  { key: "provenance", title: "Provenance", down: false, hint: "Measured by counters, or estimated; do not compare the two" },
  { key: "status", title: "Status", down: false, hint: "Of the run" },
];

export function leaderboard(store) {
  const { root, body, note } = card("leaderboard", "SAM leaderboard");
  const heads = new Map(COLUMNS.map((column) => [column.key, header(column, store)]));
  const rowsBody = el("tbody", {});
  const table = el(
    "table",
    { "aria-labelledby": "leaderboard-title" },
    el("thead", {}, el("tr", {}, ...[...heads.values()].map(({ cell }) => cell))),
    rowsBody,
  );
  body.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "SAM leaderboard, scrolls" }, table));
  let lines = new Map();

  function update(state, { rows, unit, mixed }) {
    for (const { key, title } of COLUMNS) {
      const { cell, button } = heads.get(key);
      const sorted = state.sort.key === key;
      cell.setAttribute("aria-sort", sorted ? (state.sort.down ? "descending" : "ascending") : "none");
      say(button, key === "joules" || key === "uncertainty_j" ? `${title}, ${unit.name}` : title);
    }
    lines = new Map(rows.map((row) => [row.name, lines.get(row.name) ?? line(row, store)]));
    const shown = [...lines.values()];
    // Rows keep their elements, so that sorting and polling take neither focus nor selection away.
    if (shown.some(({ tr }, at) => rowsBody.children[at] !== tr) || rowsBody.children.length !== shown.length) {
      const active = document.activeElement;
      rowsBody.replaceChildren(...shown.map(({ tr }) => tr));
      if (rowsBody.contains(active)) active.focus();
    }
    for (const row of rows) lines.get(row.name).update(row, state, unit);
    const { alpha, beta, unit: samUnit } = state.scoring;
    const notes = [
      `α ${plain(alpha)}, β ${plain(beta)}, E in ${samUnit}${state.inherited ? ", inherited energy included" : ""}.`,
      mixed ? "This ranking mixes measured and estimated energies. An estimate may be wrong by tens of percent." : "",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

function header({ key, number, hint, down }, store) {
  const button = el("button", {
    type: "button",
    title: hint,
    on: {
      click: () => {
        const { sort } = store.state;
        store.set({ sort: { key, down: sort.key === key ? !sort.down : down } });
      },
    },
  });
  return { cell: el("th", { scope: "col", class: number ? "number" : false, "data-key": key }, button), button };
}

function line(row, store) {
  const cells = new Map(COLUMNS.map(({ key, number }) => [key, el("td", { class: number ? "number" : false, "data-key": key })]));
  const dot = swatch();
  const name = nameOf(row.name);
  const open = el(
    "button",
    { type: "button", class: "open-run", title: row.name, on: { click: () => store.set({ focus: row.name }) } },
    name.root,
  );
  cells.get("label").append(el("span", { class: "run" }, dot.root, open));
  const tr = el("tr", {}, ...cells.values());
  const put = (key, text, title = "", quiet = false) => {
    const cell = cells.get(key);
    say(cell, text);
    if (cell.title !== title) cell.title = title;
    cell.classList.toggle("quiet", quiet);
  };

  function update(now, state, unit) {
    dot.update(now, state.theme);
    name.show(now.label);
    tr.setAttribute("aria-current", now.name === state.focus ? "true" : "false");
    put("rank", known(now.rank) ? String(now.rank) : NONE);
    put("moved", moved(now.moved));
    put("accuracy", percent(now.accuracy), known(now.accuracy) ? `${now.metric ?? ""} ${now.accuracy}` : "No accuracy was logged");
    put("joules", known(now.joules) ? sig(now.joules / unit.size) : NONE, energy(now.joules));
    const unsure = now.uncertainty_j;
    put("uncertainty_j", known(unsure) ? sig(unsure / unit.size, 2) : NONE, known(unsure) ? `${percent(unsure / now.joules)} %` : "");
    const undefinedHere = now.sam === null && known(now.accuracy) && known(now.joules);
    const why = `E is ${energy(now.joules)}: SAM has a pole at 1 ${state.scoring.unit} and would be negative below`;
    put("sam", undefinedHere ? `E ≤ 1 ${state.scoring.unit}` : sig(now.sam), undefinedHere ? why : "", undefinedHere);
    put("shifted", sig(now.shifted));
    put("provenance", now.provenance ?? "not known yet", now.problem ?? "", now.provenance !== "measured");
    const silent = now.silentS > SILENT_S;
    put("status", silent ? `silent for ${duration(now.silentS)}` : (now.status ?? NONE), "", silent);
    cells.get("status").dataset.status = silent ? "silent" : (now.status ?? "");
  }
  return { tr, update };
}

const plain = (value) => String(Number(value.toFixed(3)));

function moved(places) {
  if (!known(places) || places === 0) return "";
  return places > 0 ? `▲${places}` : `▼${-places}`;
}
