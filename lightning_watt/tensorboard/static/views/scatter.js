// Accuracy against energy, one mark a run, with the Pareto front; open marks are estimates.

import { Chart, axis, clipped, literal, logAxis, percentAxis } from "../chart.js";
import { card, checkbox, el, say, tick } from "../dom.js";
import { energy, known, percent, sig } from "../format.js";
import { ink, runColour } from "../palette.js";
import { heightOf } from "./stages.js";

const SYMBOLS = { measured: "circle", estimated: "circle-open", mixed: "circle-dot" };
const MOST_LABELS = 12;
const MOST_BARS = 40;

export function scatter(store) {
  const log = checkbox("log energy", true, (on) => store.set({ logEnergy: on }));
  const paths = checkbox("paths", false, (on) => store.set({ paths: on }), {
    title: "Accuracy over energy during each run, for the first runs in the table",
  });
  const { root, body, note } = card("scatter", "Accuracy against energy", log, paths);
  const chart = new Chart(body, "Accuracy against energy", 380);
  body.append(key());

  function update(state, { rows, fronts, groups, unit, mixed }) {
    tick(log, state.logEnergy);
    tick(paths, state.paths);
    const drawn = rows.filter((row) => known(row.joules) && known(row.accuracy) && (!state.logEnergy || row.joules > 0));
    const scale = (joules) => joules / unit.size;
    const { theme } = state;
    const traces = [
      ...(state.paths ? rows.flatMap((row) => path(row, state, scale)) : []),
      ...fronts.map((front) => frontTrace(front, drawn, scale, theme)),
      ...Object.keys(SYMBOLS).map((kind) => marks(drawn.filter((row) => kindOf(row) === kind), kind, scale, state, drawn.length)),
      ...means(groups, scale, state),
    ];
    const lows = drawn.map((row) => scale(row.joules - minus(row)));
    const highs = drawn.map((row) => scale(row.joules + plus(row)));
    const xaxis = state.logEnergy && drawn.length ? logAxis([...lows, ...highs]) : { rangemode: "tozero" };
    const shown = traces.flatMap((trace) => trace.y);
    chart.draw(
      theme,
      traces.filter((trace) => trace.x.length),
      {
        height: heightOf(rows),
        hovermode: "closest",
        margin: { l: 56, r: 16, t: 22, b: 44 }, // room for the label of a mark at 100 %
        xaxis: axis(theme, `Energy, ${unit.name}`, xaxis),
        yaxis: axis(theme, "Accuracy, %", { hoverformat: ".2f", ...(shown.length ? percentAxis(shown) : {}) }),
      },
      (point) => point.customdata !== undefined && store.set({ focus: point.customdata }),
    );
    chart.describe(describe(drawn, fronts));
    const left = rows.length - drawn.length;
    const notes = [
      left ? `${left} ${left === 1 ? "run has" : "runs have"} no accuracy or no energy yet and ${left === 1 ? "is" : "are"} not drawn.` : "",
      mixed ? "Estimates are off by tens of percent: they have a separate front." : "",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

const kindOf = (row) => (row.provenance in SYMBOLS ? row.provenance : "estimated");

function marks(rows, kind, scale, state, count) {
  const { theme } = state;
  const colours = rows.map((row) => runColour(theme, row.colour));
  const focused = rows.map((row) => row.name === state.focus);
  return {
    type: "scatter",
    mode: count <= MOST_LABELS ? "markers+text" : "markers",
    x: rows.map((row) => scale(row.joules)),
    y: rows.map((row) => 100 * row.accuracy),
    customdata: rows.map((row) => row.name),
    text: rows.map((row) => clipped(row.label, 28)),
    cliponaxis: false,
    textposition: places(rows),
    textfont: { size: 11, color: ink(theme).soft },
    hovertext: rows.map(hover),
    hovertemplate: "%{hovertext}<extra></extra>",
    opacity: state.group.by === "" ? 1 : 0.55, // the groups' means stand before them
    marker: {
      symbol: SYMBOLS[kind],
      size: focused.map((on) => (on ? 14 : 9)),
      color: colours,
      line: { width: focused.map((on) => (on ? 3 : 2)), color: colours },
    },
    error_x: {
      type: "data",
      array: rows.map((row) => scale(plus(row))),
      arrayminus: rows.map((row) => scale(minus(row))),
      color: ink(theme).axis,
      thickness: 1,
      width: 3,
      visible: count <= MOST_BARS,
    },
  };
}

/** A diamond at the means of each group of several runs, with standard deviations. */
function means(groups, scale, state) {
  const drawn = groups.filter(({ accuracy, joules }) => known(accuracy.sd) && joules.mean > 0);
  const { theme } = state;
  return drawn.map(({ name, measured, colour, accuracy, joules }) => ({
    type: "scatter",
    mode: "markers",
    x: [scale(joules.mean)],
    y: [100 * accuracy.mean],
    marker: { symbol: measured ? "diamond" : "diamond-open", size: 13, color: runColour(theme, colour), line: { width: 2, color: ink(theme).text } },
    error_x: { array: [scale(joules.sd)], arrayminus: [scale(Math.min(joules.sd, 0.9 * joules.mean))], color: runColour(theme, colour), thickness: 1.5, width: 4 },
    error_y: { array: [100 * accuracy.sd], color: runColour(theme, colour), thickness: 1.5, width: 4 },
    hovertext: [
      `<b>${literal(name)}</b>, mean of ${accuracy.n}<br>${percent(accuracy.mean)} ± ${percent(accuracy.sd)} %<br>` +
        `${energy(joules.mean)} ± ${energy(joules.sd)} (standard deviation)`,
    ],
    hovertemplate: "%{hovertext}<extra></extra>",
  }));
}

const plus = (row) => (known(row.uncertainty_j) ? row.uncertainty_j : 0);
// A minus as large as the energy itself has no place on a logarithmic axis.
const minus = (row) => Math.min(plus(row), 0.9 * row.joules);

/** Where each mark's label stands: over it, or under it where another label stands close above; away from the chart's sides. */
function places(rows) {
  const logs = rows.map((row) => Math.log10(row.joules));
  const [low, span] = [Math.min(...logs), Math.max(...logs) - Math.min(...logs)];
  const above = [];
  return rows.map((row, at) => {
    const near = (other) =>
      Math.abs(Math.log10(other.joules / row.joules)) < 0.25 && Math.abs(other.accuracy - row.accuracy) < 0.06;
    const under = above.some(near);
    if (!under) above.push(row);
    const side = span > 0 ? (logs[at] - low) / span : 0.5;
    return `${under ? "bottom" : "top"} ${side > 0.85 ? "left" : side < 0.15 ? "right" : "center"}`;
  });
}

function hover(row) {
  const unsure = ` ± ${known(row.uncertainty_j) ? energy(row.uncertainty_j) : "unknown"}`;
  return [
    `<b>${literal(row.name)}</b>`,
    `${percent(row.accuracy)} % ${literal(row.metric ?? "")}`,
    `${energy(row.joules)}${unsure}, ${row.provenance ?? "provenance not known yet"}`,
    `SAM ${sig(row.sam)}, shifted ${sig(row.shifted)}`,
  ].join("<br>");
}

function frontTrace(front, drawn, scale, theme) {
  const rows = front.rows;
  const last = Math.max(...drawn.filter((row) => row.measured === front.measured).map((row) => row.joules));
  return {
    type: "scatter",
    mode: "lines",
    x: [...rows.map((row) => row.joules), last].map(scale),
    y: [...rows, rows.at(-1)].map((row) => 100 * row.accuracy),
    line: { shape: "hv", width: 1.5, color: ink(theme).axis, dash: front.measured ? "solid" : "dot" },
    hoverinfo: "skip",
  };
}

function path(row, state, scale) {
  const curves = state.curves[row.name];
  if (!curves?.path_j?.length) return [];
  const before = state.inherited ? row.inherited_j : 0;
  // It ends in the run's mark, which may have used more since its last accuracy.
  const points = [...curves.path_j.map((joules, at) => [joules + before, curves.path_accuracy[at]]), [row.joules, row.accuracy]];
  const good = points.filter(([joules, accuracy]) => joules > 0 && known(accuracy) && accuracy >= 0 && accuracy <= 1);
  return [
    {
      type: "scatter",
      mode: "lines",
      x: good.map(([joules]) => scale(joules)),
      y: good.map(([, accuracy]) => 100 * accuracy),
      line: { width: 1, color: runColour(state.theme, row.colour) },
      opacity: 0.55,
      hoverinfo: "skip",
    },
  ];
}

function describe(drawn, fronts) {
  const sentences = fronts.map((front) => {
    const rows = front.rows.map((row) => `${row.label}: ${percent(row.accuracy)} % at ${energy(row.joules)}`);
    return `Pareto front of ${front.measured ? "measured" : "estimated"} runs: ${rows.slice(0, 20).join("; ")}.`;
  });
  return `Accuracy against energy, ${drawn.length} runs. ${sentences.join(" ")} The leaderboard has all values.`;
}

function key() {
  const entry = (mark, text) => el("li", {}, el("span", { class: `mark ${mark}`, "aria-hidden": "true" }), text);
  return el(
    "ul",
    { class: "key" },
    entry("full", "measured"),
    entry("open", "estimated"),
    entry("dotted", "mixed"),
    entry("line", "Pareto front"),
    entry("dash", "of estimates"),
  );
}
