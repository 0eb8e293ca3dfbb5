// Energy so far, with the forecast of the whole, its interval, and the budget.

import { Chart, axis, clipped, fromZero, literal } from "../chart.js";
import { card, choice, say } from "../dom.js";
import { energyUnit, known } from "../format.js";
import { OVER, placesOver } from "../over.js";
import { runColour } from "../palette.js";
import { MOST_IN_LEGEND, MOST_RUNS } from "./power.js";

const MOST_FORECASTS = 4;

export function growth(store) {
  const over = choice("over", "growth-over", OVER, (value) => store.set({ over: value }));
  const { root, body, note } = card("growth", "Energy so far", over.bar);
  const chart = new Chart(body, "Energy so far", 300);

  function update(state, { rows }) {
    over.show(state.over);
    const there = rows.slice(0, MOST_RUNS).filter((row) => state.curves[row.name]?.energy.t.length);
    const lines = there.map((row) => ({ row, curves: state.curves[row.name], curve: state.curves[row.name].energy }));
    const foretold = lines.filter(({ curves }) => curves.forecast.t.length).slice(0, MOST_FORECASTS);
    const bands = foretold.map(({ row, curves }) => ({ row, curves, curve: curves.forecast }));
    const { title, unit, places } = placesOver(state.over, [...lines, ...bands]);
    const size = energyUnit(lines.map(({ curve }) => curve.v.at(-1)));
    const scale = (joules) => (known(joules) ? joules / size.size : null);
    const traces = [
      ...bands.flatMap((band, at) => forecast(band, places[lines.length + at], scale, state.theme)),
      ...lines.map(({ row, curve }, at) => ({
        type: "scatter",
        mode: curve.t.length > 1 ? "lines" : "markers",
        name: clipped(row.label, 34) + (row.measured ? "" : " (est.)"),
        x: places[at],
        y: curve.v.map(scale),
        line: { width: 2, color: runColour(state.theme, row.colour) },
        marker: { color: runColour(state.theme, row.colour) },
        hovertext: literal(row.name),
        hovertemplate: `<b>%{hovertext}</b><br>%{y:.3~g} ${size.name} at %{x:.3~g} ${unit}<extra></extra>`,
      })),
    ];
    const budgets = there.filter((row) => known(row.budget_j));
    const top = Math.max(0, ...traces.flatMap(({ y }) => y.filter(known)), ...budgets.map((row) => scale(row.budget_j)));
    chart.draw(state.theme, traces, {
      hovermode: "closest",
      showlegend: lines.length > 1 && lines.length <= MOST_IN_LEGEND,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis(state.theme, title, { rangemode: "tozero" }),
      yaxis: axis(state.theme, `Energy, ${size.name}`, fromZero(top)),
      shapes: budgets.map((row) => ({
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: scale(row.budget_j),
        y1: scale(row.budget_j),
        line: { width: 1.5, dash: "dash", color: runColour(state.theme, row.colour) },
        label: { text: `budget of ${clipped(row.label, 24)}`, textposition: "end", font: { size: 11 } },
      })),
    });
    chart.describe(`Energy so far of ${lines.length} runs over ${state.over}.`);
    const notes = [
      rows.length > MOST_RUNS ? `The first ${MOST_RUNS} of ${rows.length} runs in the table.` : "",
      foretold.length ? "Dotted, with its 95 % interval: the forecast of the whole at each time." : "",
      lines.length ? "" : "No energy has been logged yet.",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

function forecast({ row, curves, curve }, x, scale, theme) {
  const color = runColour(theme, row.colour);
  const unsure = new Map(curves.forecast_uncertainty.step.map((step, at) => [step, curves.forecast_uncertainty.v[at]]));
  const edge = (sign) => curve.v.map((joules, at) => (known(joules) ? scale(joules + sign * (unsure.get(curve.step[at]) ?? 0)) : null));
  const quiet = { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, x };
  return [
    { ...quiet, name: "forecast-low", y: edge(-1), line: { width: 0, color } },
    { ...quiet, name: "forecast-high", y: edge(1), line: { width: 0, color }, fill: "tonexty", fillcolor: `${color}26` },
    { ...quiet, name: "forecast", y: curve.v.map(scale), line: { width: 1.5, dash: "dot", color } },
  ];
}
