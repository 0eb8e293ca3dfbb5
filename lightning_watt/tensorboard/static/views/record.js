// One run in full: its plus or minus in parts, where each number comes from, machine, model, lineage and complaints.

import { fetchRecord } from "../api.js";
import { el } from "../dom.js";
import { stageName } from "./stages.js";
import { statementOf } from "./statement.js";
import { NONE, duration, energy, known, moment, percent, sig } from "../format.js";

const MOST_EPOCHS = 40;
const J_PER_KWH = 3.6e6;

export function recordPanel(store) {
  const close = el("button", { type: "button", class: "close", "aria-label": "Close", on: { click: () => shut() } }, "×");
  const title = el("h2", { tabindex: "-1" });
  const body = el("div", { class: "body" });
  const root = el("aside", { class: "record", hidden: true, "aria-label": "The run's record" }, el("header", {}, title, close), body);
  let shown = null;
  let stamp = null;
  let opener = null;

  function shut() {
    store.set({ focus: null });
    opener?.focus?.();
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && shown !== null && shut());

  function update(state) {
    const row = state.focus === null ? undefined : state.runs?.find((run) => run.name === state.focus);
    root.hidden = row === undefined;
    if (row === undefined) {
      shown = stamp = null;
      return;
    }
    if (shown === row.name && stamp === row.seen_unix) return;
    const opened = shown !== row.name;
    if (opened) {
      opener = document.activeElement;
      body.replaceChildren();
      title.textContent = row.name;
    }
    [shown, stamp] = [row.name, row.seen_unix];
    fetchRecord(row.name)
      .then(({ record, problem }) => {
        if (shown !== row.name) return;
        body.replaceChildren(...(record ? whole(record, row) : [el("p", {}, problem ?? nothingYet)]));
        if (opened) title.focus();
      })
      .catch((error) => shown === row.name && body.replaceChildren(el("p", {}, `The record cannot be read: ${error.message}`)));
  }
  return { root, update };
}

const nothingYet = "Where the numbers come from is in the run's record. It is written after the first reading.";

function whole(record, row) {
  const { energy: spent, accuracy, sam } = record;
  const facts = [
    ["Status", record.status === row.status ? record.status : `${row.status}; ${record.status} when the record was written`],
    ["Began", moment(record.started_unix)],
    ["Record of", moment(record.updated_unix)],
    ["Energy", `${energy(spent.total_j)}${known(spent.uncertainty_j) ? ` ± ${energy(spent.uncertainty_j)}` : ""}`],
    ["of that ±", `edges ${energy(spent.boundary_j)}, scale ${energy(spent.gain_j)}`],
    ["Provenance", spent.provenance ?? NONE],
    ["Accuracy", known(accuracy.last) ? `${percent(accuracy.last)} % (${accuracy.metric}), best ${percent(accuracy.best)} %` : NONE],
    ["SAM", `${sig(sam.value)}, shifted ${sig(sam.shifted)} (α ${sam.alpha}, β ${sam.beta}, E in ${sam.unit})`],
    ["CO2e", known(record.co2e_g) ? `${sig(record.co2e_g)} g, at ${sig(record.carbon_intensity)} g/kWh${record.carbon_source ? ` (${record.carbon_source})` : ""}, PUE ${sig(record.pue)}` : null],
    ["Cost", known(record.cost) ? `${sig(record.cost)}, at ${sig(record.electricity_price)} a kWh, PUE ${sig(record.pue)}` : null],
    ["Budget", known(record.budget_kwh) ? energy(record.budget_kwh * J_PER_KWH) : null],
    ["Idle", record.idle ? idle(record) : null],
    ["Batch edges", record.marks],
  ];
  const devices = Object.entries(spent.by_device).map(([label, device]) => [
    label,
    device.name,
    energy(device.joules),
    `± ${sig(100 * device.gain, 2)} %`,
    known(device.tick_s) && device.tick_s > 0 ? `${sig(1000 * device.tick_s, 2)} ms` : NONE,
    device.source,
    device.provenance,
  ]);
  const stages = Object.entries(spent.by_stage).map(([name, stage]) => [
    name,
    energy(stage.joules),
    `± ${energy(stage.uncertainty_j)}`,
    duration(stage.seconds),
    stage.seconds > 0 ? `${sig(stage.joules / stage.seconds)} W` : NONE,
    stage.batches > 0 ? energy(stage.joules / stage.batches) : NONE,
    stage.samples > 0 ? energy(stage.joules / stage.samples) : NONE,
  ]);
  const notes = Object.entries(spent.by_device).filter(([, device]) => device.note);
  return [
    statementOf(row.name),
    list(facts),
    ...section("Devices", table(["", "name", "energy", "scale", "tick", "source", "provenance"], devices)),
    ...section("", bullets(notes.map(([label, device]) => `${label}: ${device.note}`))),
    ...section("Parts of the resumed run", parts(record)),
    ...section("Stages", table(["", "energy", "±", "time", "mean", "a batch", "a sample"], stages)),
    ...section(epochTitle(record.epochs), table(["epoch", "stage", "energy", "time", "accuracy"], record.epochs.slice(-MOST_EPOCHS).reverse().map(epochRow))),
    ...section("Inherited", bullets(record.inherited.map((run) => `${energy(run.total_j)} ± ${known(run.uncertainty_j) ? energy(run.uncertainty_j) : "unknown"} from ${run.path}`))),
    ...section("Not measured", bullets(record.missing)),
    ...section("Lost", bullets(record.gaps.map((gap) => `${gap.device}: ${duration(gap.seconds)}, ${energy(gap.joules)}: ${gap.why}`))),
    ...section("Warnings", bullets(record.warnings)),
    ...section("Model", list(plain(record.model))),
    ...section("Machine", list(plain(record.hardware))),
    ...section("Software", list(plain(record.software))),
  ];
}

/** What a resumed run used in its sessions: up to the checkpoint, lost after it, and since. */
function parts(record) {
  if (!record.resumed_j && !record.wasted_j) return null;
  const whole = record.energy.total_j ?? 0;
  const rows = [
    ["up to the checkpoint", energy(record.resumed_j), share(record.resumed_j, whole), ""],
    ["wasted after it", energy(record.wasted_j), share(record.wasted_j, whole), ""],
    ...record.lost.map((lost) => [`· ${lost.status}`, energy(lost.joules), share(lost.joules, whole), `${lost.directory}, ${duration(lost.seconds)}`]),
    ["this session", energy(Math.max(0, whole - record.resumed_j - record.wasted_j)), share(whole - record.resumed_j - record.wasted_j, whole), ""],
  ];
  return table(["", "energy", "of it", "where"], rows);
}

const share = (joules, whole) => (whole > 0 ? `${percent(joules / whole)} %` : NONE);

function idle({ idle: found, energy: spent }) {
  const watts = Object.values(found.power_w).reduce((a, b) => a + b, 0);
  const seconds = Object.values(spent.by_stage).reduce((sum, stage) => sum + stage.seconds, 0);
  return `${sig(watts)} W over ${duration(found.seconds)} before the run; for the run's time ${energy(watts * seconds)}, which is not taken off`;
}

const epochTitle = (epochs) => (epochs.length > MOST_EPOCHS ? `Epochs: the last ${MOST_EPOCHS} rows` : "Epochs");

const epochRow = ({ epoch, stage, joules, seconds, accuracy }) => [String(epoch), stageName(stage), energy(joules), duration(seconds), known(accuracy) ? `${percent(accuracy)} %` : NONE];

const section = (title, content) => (content === null ? [] : [title ? el("h3", {}, title) : null, content].filter(Boolean));

const bullets = (lines) => (lines.length ? el("ul", {}, ...lines.map((line) => el("li", {}, line))) : null);

/** Facts that some library wrote, as text, of any type. */
function plain(facts) {
  return Object.entries(facts).map(([name, value]) => {
    const number = known(value) && !Number.isInteger(value) ? sig(value, 4) : known(value) ? value.toLocaleString("en-US") : null;
    const text = number ?? (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? NONE));
    return [name.replaceAll("_", " "), name === "year" ? String(value) : text.slice(0, 400)];
  });
}

function list(facts) {
  const present = facts.filter(([, text]) => text !== null);
  return present.length ? el("dl", {}, ...present.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])) : null;
}

function table(heads, rows) {
  if (!rows.length) return null;
  const head = el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)));
  const lines = rows.map(([first, ...rest]) =>
    el("tr", {}, el("th", { scope: "row" }, first), ...rest.map((text) => el("td", {}, text))),
  );
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...lines)));
}
