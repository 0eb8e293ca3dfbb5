// Power over time, steps, epochs or energy: each device where few runs are shown, each run's sum where many are.

import { Chart, axis, clipped, literal } from "../chart.js";
import { card, choice, say } from "../dom.js";
import { OVER, placesOver } from "../over.js";
import { runColour } from "../palette.js";

export const MOST_RUNS = 12;
export const MOST_BY_DEVICE = 4;
export const MOST_IN_LEGEND = 6; // the list of runs has the colours of all
const DASHES = ["solid", "dash", "dot", "dashdot"];

export function power(store) {
  const over = choice("over", "power-over", OVER, (value) => store.set({ over: value }));
  const { root, body, note, heading } = card("power", "Power", over.bar);
  const chart = new Chart(body, "Power", 300);

  function update(state, { rows }) {
    over.show(state.over);
    const drawn = rows.slice(0, MOST_RUNS).flatMap((row) => curvesOf(row, state.curves[row.name]));
    const { title, unit, places } = placesOver(state.over, drawn);
    const byDevice = drawn.some(({ device }) => device !== "total");
    say(heading, byDevice ? "Power, by device" : "Power");
    const traces = drawn.map(({ row, device, order, curve }, at) => ({
      type: "scatter",
      mode: curve.t.length > 1 ? "lines" : "markers",
      name: clipped(byDevice ? `${row.label} · ${device}` : row.label, 34) + (row.measured ? "" : " (est.)"),
      x: places[at],
      y: curve.v,
      // A row is the mean since the row before it, so its height holds for the time up to it.
      line: { shape: "vh", width: 1.5, color: runColour(state.theme, row.colour), dash: DASHES[order % DASHES.length] },
      marker: { color: runColour(state.theme, row.colour), symbol: row.measured ? "circle" : "circle-open" },
      opacity: row.measured ? 1 : 0.75,
      hovertext: `${literal(row.name)}, ${literal(device)}`,
      hovertemplate: `<b>%{hovertext}</b><br>%{y:.3s}W at %{x:.3~g} ${unit}<extra></extra>`,
    }));
    chart.draw(state.theme, traces, {
      hovermode: "closest",
      showlegend: traces.length > 1 && traces.length <= MOST_IN_LEGEND,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis(state.theme, title, { rangemode: "tozero" }),
      yaxis: axis(state.theme, "Power, W", { rangemode: "tozero", exponentformat: "SI" }),
    });
    chart.describe(`Power of ${new Set(drawn.map(({ row }) => row.name)).size} runs over ${state.over}, mean watts between two log rows.`);
    const notes = [
      rows.length > MOST_RUNS ? `The first ${MOST_RUNS} of ${rows.length} runs in the table.` : "",
      rows.length > MOST_BY_DEVICE ? `With ${MOST_BY_DEVICE} runs or fewer each device has its own line.` : "",
      drawn.length ? "" : "No power has been logged yet.",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

function curvesOf(row, curves) {
  return Object.entries(curves?.power ?? {})
    .filter(([, curve]) => curve.t.length)
    .sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }))
    .map(([device, curve], order) => ({ row, curves, device, order, curve }));
}
