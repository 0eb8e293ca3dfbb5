// Power over time: each device where few runs are shown, each run's sum where many are.

import { Chart, axis, clipped, literal } from "../chart.js";
import { card, say } from "../dom.js";
import { known, timeUnit } from "../format.js";
import { runColour } from "../palette.js";

export const MOST_RUNS = 12;
export const MOST_BY_DEVICE = 4;
const DASHES = ["solid", "dash", "dot", "dashdot"];

export function power() {
  const { root, body, note, heading } = card("power", "Power over time");
  const chart = new Chart(body, "Power over time");

  function update(state, { rows }) {
    const curves = rows.slice(0, MOST_RUNS).flatMap((row) => curvesOf(row, state.curves[row.name]));
    const unit = timeUnit(curves.map((curve) => curve.seconds.at(-1)));
    const byDevice = curves.some((curve) => curve.device !== "total");
    say(heading, byDevice ? "Power over time, by device" : "Power over time");
    const traces = curves.map(({ row, device, order, seconds, watts }) => ({
      type: "scatter",
      mode: seconds.length > 1 ? "lines" : "markers",
      name: clipped(byDevice ? `${row.label} · ${device}` : row.label, 34) + (row.measured ? "" : " (est.)"),
      x: seconds.map((second) => second / unit.size),
      y: watts,
      // A row is the mean since the row before it, so its height holds for the time up to it.
      line: { shape: "vh", width: 1.5, color: runColour(state.theme, row.colour), dash: DASHES[order % DASHES.length] },
      marker: { color: runColour(state.theme, row.colour), symbol: row.measured ? "circle" : "circle-open" },
      opacity: row.measured ? 1 : 0.75,
      hovertext: `${literal(row.name)}, ${literal(device)}`,
      hovertemplate: `<b>%{hovertext}</b><br>%{y:.3s}W at %{x:.3~g} ${unit.name}<extra></extra>`,
    }));
    chart.draw(state.theme, traces, {
      height: 300,
      hovermode: "closest",
      showlegend: traces.length > 1,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis(state.theme, `Time since the run began, ${unit.name}`, { rangemode: "tozero" }),
      yaxis: axis(state.theme, "Power, W", { rangemode: "tozero", exponentformat: "SI" }),
    });
    chart.describe(`Power over time of ${new Set(curves.map((curve) => curve.row.name)).size} runs, mean watts between two log rows.`);
    const notes = [
      rows.length > MOST_RUNS ? `The first ${MOST_RUNS} of ${rows.length} runs in the table.` : "",
      rows.length > MOST_BY_DEVICE ? `With ${MOST_BY_DEVICE} runs or fewer each device has its own line.` : "",
      curves.length ? "" : "No power has been logged yet.",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

function curvesOf(row, curves) {
  const devices = Object.entries(curves?.power ?? {}).filter(([, curve]) => curve.t.length);
  const began = Math.min(...devices.map(([, curve]) => curve.t[0]), known(row.started_unix) ? row.started_unix : Infinity);
  return devices
    .sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }))
    .map(([device, { t, w }], order) => ({ row, device, order, seconds: t.map((unix) => unix - began), watts: w }));
}
