// The energy of each epoch: a line a run, or the stages of the only run.

import { Chart, axis, clipped, literal } from "../chart.js";
import { card, say } from "../dom.js";
import { energyUnit } from "../format.js";
import { runColour, stageColour } from "../palette.js";
import { MOST_IN_LEGEND, MOST_RUNS } from "./power.js";
import { stageName } from "./stages.js";

export function epochs() {
  const { root, body, note } = card("epochs", "Energy by epoch");
  const chart = new Chart(body, "Energy by epoch", 260);

  function update(state, { rows }) {
    const there = rows.slice(0, MOST_RUNS).filter((row) => state.epochs[row.name]?.length);
    const series = there.length === 1 ? byStage(state.epochs[there[0].name]) : there.map((row) => ({ row, ...summed(state.epochs[row.name]) }));
    const unit = energyUnit(series.flatMap(({ joules }) => joules));
    const traces = series.map(({ row, stage, epoch, joules }) => {
      const name = row ? row.name : stageName(stage);
      const color = row ? runColour(state.theme, row.colour) : stageColour(state.theme, stage);
      return {
        type: row ? "scatter" : "bar",
        ...(row ? { mode: epoch.length > 1 ? "lines" : "markers", line: { width: 1.5, color } } : {}),
        marker: { color },
        name: row ? clipped(row.label, 34) + (row.measured ? "" : " (est.)") : name,
        x: epoch,
        y: joules.map((one) => one / unit.size),
        hovertext: literal(name),
        hovertemplate: `<b>%{hovertext}</b><br>%{y:.3~g} ${unit.name} in epoch %{x}<extra></extra>`,
      };
    });
    chart.draw(state.theme, traces, {
      barmode: "stack",
      hovermode: "closest",
      showlegend: traces.length > 1 && traces.length <= MOST_IN_LEGEND,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis(state.theme, "Epoch", { tickformat: "d" }),
      yaxis: axis(state.theme, `Energy, ${unit.name}`, { rangemode: "tozero" }),
    });
    chart.describe(`Energy by epoch of ${there.length} runs.`);
    const notes = [
      rows.length > MOST_RUNS ? `The first ${MOST_RUNS} of ${rows.length} runs in the table.` : "",
      there.length ? "The newest epochs of each record." : "No record has an epoch yet.",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}

function summed(rows) {
  const found = new Map();
  for (const { epoch, joules } of rows) found.set(epoch, (found.get(epoch) ?? 0) + joules);
  return { epoch: [...found.keys()], joules: [...found.values()] };
}

function byStage(rows) {
  const stages = [...new Set(rows.map(({ stage }) => stage))];
  return stages.map((stage) => ({ stage, ...summed(rows.filter((row) => row.stage === stage)) }));
}
