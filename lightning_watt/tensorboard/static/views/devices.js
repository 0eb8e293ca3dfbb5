// Energy by device: a small chart for each device, with the same runs in each.

import { Chart, axis, clipped, fromZero, literal } from "../chart.js";
import { card, say } from "../dom.js";
import { energy, energyUnit, percent } from "../format.js";
import { runColour } from "../palette.js";

const MOST_RUNS = 12;
const MOST_DEVICES = 8;
const { compare } = new Intl.Collator(undefined, { numeric: true });

export function devices(store) {
  const { root, body, note } = card("devices", "Energy by device");
  const chart = new Chart(body, "Energy by device", 260);

  function update(state, { rows }) {
    const all = rows.filter((row) => Object.keys(row.by_device).length);
    const drawn = all.slice(0, MOST_RUNS);
    const labels = [...new Set(drawn.flatMap((row) => Object.keys(row.by_device)))].sort(compare);
    const shown = labels.slice(0, MOST_DEVICES);
    const unit = energyUnit(drawn.flatMap((row) => Object.values(row.by_device)));
    const most = Math.max(0, ...drawn.flatMap((row) => Object.values(row.by_device))) / unit.size;
    const at = drawn.map((_, index) => index);
    const traces = shown.map((label, column) => ({
      type: "bar",
      orientation: "h",
      xaxis: column ? `x${column + 1}` : "x",
      yaxis: "y",
      y: at,
      x: drawn.map((row) => (row.by_device[label] ?? 0) / unit.size),
      marker: {
        color: drawn.map((row) => runColour(state.theme, row.colour)),
        pattern: { shape: drawn.map((row) => (row.measured ? "" : "/")), fillmode: "overlay", size: 6, solidity: 0.2 },
      },
      hovertext: drawn.map((row) => {
        const used = row.by_device[label] ?? 0;
        const whole = Object.values(row.by_device).reduce((a, b) => a + b, 0);
        return `<b>${literal(row.name)}</b><br>${literal(label)} ${energy(used)}, ${percent(used / whole)} %`;
      }),
      hovertemplate: "%{hovertext}<extra></extra>",
    }));
    const room = shown.length ? 1 / shown.length : 1;
    const xaxes = shown.map((label, column) => [
      column ? `xaxis${column + 1}` : "xaxis",
      axis(state.theme, `${clipped(label, 20)}, ${unit.name}`, { ...fromZero(most), domain: [column * room, (column + 0.9) * room], nticks: shown.length > 3 ? 3 : 6 }),
    ]);
    chart.draw(
      state.theme,
      traces,
      {
        hovermode: "closest",
        bargap: 0.3,
        margin: { l: 8, r: 16, t: 8, b: 44 },
        ...Object.fromEntries(xaxes),
        yaxis: axis(state.theme, "", { tickvals: at, ticktext: drawn.map((row) => clipped(row.label, 26)), autorange: "reversed", showgrid: false, ticks: "" }),
      },
      (point) => store.set({ focus: drawn[point.y].name }),
    );
    chart.describe(`Energy by device of ${drawn.length} runs: ${shown.join(", ")}.`);
    const notes = [
      all.length > drawn.length ? `The first ${MOST_RUNS} of ${all.length} runs in the table.` : "",
      labels.length > shown.length ? `The first ${MOST_DEVICES} of ${labels.length} devices.` : "",
      drawn.some((row) => !row.measured) ? "Hatched: estimated." : "",
      drawn.length ? "As of each run's last record." : "No record has a device yet.",
    ];
    say(note, notes.filter(Boolean).join(" "));
  }
  return { root, update };
}
