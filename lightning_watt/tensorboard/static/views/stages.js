// Where each run's energy went: stages stacked, estimates hatched.

import { Chart, axis, clipped, literal } from "../chart.js";
import { card, checkbox, say, tick } from "../dom.js";
import { energy, energyUnit, known, percent, sig } from "../format.js";
import { ink, stageColour } from "../palette.js";

const MOST_RUNS = 24;
const STAGES = [
  ["inherited_j", "inherited"],
  ["train", "train"],
  ["validate", "validate"],
  ["test", "test"],
  ["predict", "predict"],
  ["sanity_check", "sanity check"],
  ["tune", "tuner"],
  ["other", "other"],
  ["wasted", "wasted by crashes"],
];

const NAMES = new Map(STAGES);
export const stageName = (stage) => NAMES.get(stage) ?? stage;

const BAR_PX = 20;
const FRAME_PX = 84; // the legend and the axis

/** How tall a chart with a bar for each run is; the chart next to it is as tall. */
export const heightOf = (rows) => Math.max(380, Math.min(680, FRAME_PX + 34 * Math.min(rows.length, MOST_RUNS)));

export function stages(store) {
  const shares = checkbox("shares", false, (on) => store.set({ shares: on }), { title: "Each run as 100 %" });
  const { root, body, note } = card("stages", "Energy by stage", shares);
  const chart = new Chart(body, "Energy by stage", 380);

  function update(state, { rows }) {
    tick(shares, state.shares);
    const withStages = rows.filter((row) => known(row.joules) && row.joules > 0).sort((a, b) => b.joules - a.joules);
    const drawn = withStages.slice(0, MOST_RUNS);
    const unit = energyUnit(drawn.map((row) => row.joules));
    const value = (row, stage) => {
      const joules = stage === "inherited_j" ? (state.inherited ? row.inherited_j : 0) : row.by_stage[stage];
      return known(joules) ? joules : 0;
    };
    const at = drawn.map((_, index) => index);
    const traces = STAGES.filter(([stage]) => drawn.some((row) => value(row, stage) > 0)).map(([stage, name]) => ({
      type: "bar",
      orientation: "h",
      name,
      y: at,
      x: drawn.map((row) => (state.shares ? (100 * value(row, stage)) / row.joules : value(row, stage) / unit.size)),
      hovertext: drawn.map(
        (row) => `<b>${literal(row.name)}</b><br>${name} ${energy(value(row, stage))}, ${percent(value(row, stage) / row.joules)} %`,
      ),
      hovertemplate: "%{hovertext}<extra></extra>",
      marker: {
        color: stageColour(state.theme, stage),
        line: { width: 0 },
        pattern: {
          shape: drawn.map((row) => (row.measured ? "" : "/")),
          fillmode: "overlay",
          fgcolor: ink(state.theme).ground,
          size: 6,
          solidity: 0.2,
        },
      },
    }));
    chart.draw(
      state.theme,
      traces,
      {
        height: heightOf(rows),
        barmode: "stack",
        bargap: Math.max(0.2, 1 - (BAR_PX * Math.max(1, drawn.length)) / (heightOf(rows) - FRAME_PX)),
        showlegend: true,
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal", itemclick: false, itemdoubleclick: false },
        margin: { l: 8, r: 16, t: 8, b: 44 },
        xaxis: axis(state.theme, state.shares ? "Share of the run's energy, %" : `Energy, ${unit.name}`, { rangemode: "tozero" }),
        yaxis: axis(state.theme, "", {
          tickvals: at,
          ticktext: drawn.map((row) => clipped(row.label, 26)),
          autorange: "reversed",
          showgrid: false,
          ticks: "",
        }),
      },
      (point) => store.set({ focus: drawn[point.y].name }),
    );
    chart.describe(
      `Energy by stage. ${drawn.map((row) => `${row.label}: ${STAGES.map(([s, n]) => [n, value(row, s)]).filter(([, v]) => v > 0).map(([n, v]) => `${n} ${sig((100 * v) / row.joules)} %`).join(", ")}`).join("; ")}`,
    );
    const notes = [
      withStages.length > drawn.length ? `The ${MOST_RUNS} runs with the most energy of ${withStages.length}.` : "",
      drawn.some((row) => !row.measured) ? "Hatched: estimated." : "",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}
