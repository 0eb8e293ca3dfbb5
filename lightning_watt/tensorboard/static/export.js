// The table as CSV and as LaTeX, and how the browser saves a file.

import { chosenColumns, headingOf, valueOf } from "./columns.js";

const ESCAPES = {
  "\\": "\\textbackslash{}",
  "~": "\\textasciitilde{}",
  "^": "\\textasciicircum{}",
  α: "$\\alpha$",
  β: "$\\beta$",
  Δ: "$\\Delta$",
  "±": "$\\pm$",
  "≤": "$\\leq$",
  "×": "$\\times$",
  "▲": "$\\blacktriangle$",
  "▼": "$\\blacktriangledown$",
  "–": "--",
  "−": "$-$",
  ...Object.fromEntries([..."&%$#_{}"].map((one) => [one, `\\${one}`])),
};
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻";

/** The runs shown, a row each: the values themselves and not as they are rounded; energies in joules. */
export function toCsv(state, { rows, keys }) {
  const columns = chosenColumns(state.columns, keys);
  const names = columns.map(({ key }) => (key === "label" ? "run" : key === "joules" ? "energy_j" : key));
  const lines = rows.map((row) => columns.map(({ key }) => valueOf(row, key === "label" ? "name" : key)));
  return [names, ...lines].map((cells) => cells.map(quoted).join(",")).join("\n") + "\n";
}

function quoted(value) {
  const text = value === null ? "" : String(value);
  // A cell that a spreadsheet would take for a formula is text.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** A tabular environment of what the table shows. */
export function toLatex(state, { rows, keys, unit }) {
  const columns = chosenColumns(state.columns, keys);
  const spec = columns.map(({ number }) => (number ? "r" : "l")).join("");
  const heading = columns.map((column) => latex(headingOf(column, unit))).join(" & ");
  const cells = (row) => columns.map(({ key, text }) => latex(key === "label" ? row.label : text(row, { state, unit }))).join(" & ");
  const lines = rows.map((row, at) => `${!row.measured && at > 0 && rows[at - 1].measured ? "\\hline\n" : ""}${cells(row)} \\\\`);
  const { alpha, beta, unit: samUnit } = state.scoring;
  const about = `% SAM with alpha = ${alpha}, beta = ${beta}, E in ${samUnit}; energies in ${unit.name}${state.inherited ? ", inherited energy included" : ""}`;
  return [about, `\\begin{tabular}{${spec}}`, "\\hline", `${heading} \\\\`, "\\hline", ...lines, "\\hline", "\\end{tabular}", ""].join("\n");
}

function latex(text) {
  return [...text]
    .map((one) => {
      const power = SUPERSCRIPTS.indexOf(one);
      return power < 0 ? (ESCAPES[one] ?? one) : `$^{${power === 10 ? "-" : power}}$`;
    })
    .join("");
}

/** Saves a text under a name. */
export function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
