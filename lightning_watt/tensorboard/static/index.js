// The Watt tab: TensorBoard imports this module into an empty frame and calls render().

import { keepInAddress } from "./address.js";
import { byRun, fetchCurves, fetchEpochs, fetchRuns } from "./api.js";
import { el } from "./dom.js";
import { addressed, isVisible, onReload, onTheme } from "./host.js";
import { Store } from "./state.js";
import { comparison } from "./views/compare.js";
import { controls } from "./views/controls.js";
import { devices } from "./views/devices.js";
import { empty } from "./views/empty.js";
import { epochs } from "./views/epochs.js";
import { groupMeans } from "./views/groups.js";
import { growth } from "./views/growth.js";
import { leaderboard } from "./views/leaderboard.js";
import { nothing } from "./views/nothing.js";
import { MOST_BY_DEVICE, MOST_RUNS, power } from "./views/power.js";
import { recordPanel } from "./views/record.js";
import { runList } from "./views/runs.js";
import { scatter } from "./views/scatter.js";
import { stages } from "./views/stages.js";
import { tiles } from "./views/tiles.js";

const POLL_MS = 5000; // TensorBoard itself looks for new rows every 5 s
const CURVES_MS = 250;

export async function render() {
  document.documentElement.lang = "en";
  document.title = "Watt";
  const style = el("link", { rel: "stylesheet", href: new URL("watt.css", import.meta.url).href });
  const styled = new Promise((resolve) => (style.onload = style.onerror = resolve));
  document.head.append(style);
  await styled;

  const store = new Store();
  const refresher = refreshing(store);
  const bar = controls(store, refresher.live);
  refresher.tellBy(bar.tell);
  const list = runList(store);
  const record = recordPanel(store);
  const cards = [
    nothing(store),
    tiles(store),
    scatter(store),
    stages(store),
    comparison(store),
    groupMeans(),
    leaderboard(store),
    growth(store),
    power(store),
    epochs(),
    devices(store),
  ];
  const views = [bar, list, ...cards, record];
  const heading = el("h1", { class: "unseen" }, "Accuracy and energy of the runs");
  const dashboard = el("main", {}, heading, ...cards.map((view) => view.root));
  const page = el("div", { class: "page", hidden: true }, bar.root, list.root, dashboard, record.root);
  const start = empty();
  const waiting = el("p", { class: "waiting", role: "status" }, "Reading the runs…");
  start.root.hidden = true;
  document.body.append(waiting, start.root, page);

  store.subscribe((state, model) => {
    const none = state.runs === null ? null : state.runs.length === 0;
    waiting.hidden = none !== null;
    start.root.hidden = none !== true;
    page.hidden = none !== false;
    start.update(state);
    if (none === false) for (const view of views) view.update(state, model);
    document.documentElement.dataset.theme = state.theme;
  });
  store.subscribe((state, model) => refresher.wantCurves(model.rows));
  keepInAddress(store, addressed());
  onTheme((theme) => store.set({ theme }));
  onReload(refresher.now);
  refresher.start();
}

/** Asks the server again and again while the tab is seen, and at once when TensorBoard has reloaded. */
function refreshing(store) {
  let live = true;
  let timer = null;
  let asking = null;
  let tell = () => {};
  let wanted = []; // names of the rows in the table's order
  let drawn = ""; // whose curves are here
  let soon = null;
  // The order of runs whose curves are all here does not matter.
  const key = (names) => JSON.stringify([names.length <= MOST_BY_DEVICE, names.slice(0, MOST_RUNS).sort()]);

  async function ask() {
    try {
      store.takeRuns(await fetchRuns());
      await askCurves();
      tell(`updated ${new Date().toLocaleTimeString()}`, false);
    } catch (error) {
      tell(`no answer (${error.message})`, true);
    }
  }

  const now = () => (asking ??= ask().finally(() => (asking = null)));

  /** Fetches the curves and the epochs of the runs that stand first. */
  async function askCurves() {
    const rows = wanted.slice(0, MOST_RUNS);
    const [curves, epochs] = rows.length ? await Promise.all([fetchCurves(rows, wanted.length <= MOST_BY_DEVICE), fetchEpochs(rows)]) : [byRun({}), byRun({})];
    drawn = key(wanted);
    store.set({ curves, epochs });
  }

  return {
    now,
    start() {
      const loop = async () => {
        if (live && isVisible()) await now();
        timer = setTimeout(loop, POLL_MS);
      };
      clearTimeout(timer);
      now().then(() => (timer = setTimeout(loop, POLL_MS)));
    },
    live(on) {
      live = on;
      if (on) now();
    },
    tellBy(how) {
      tell = how;
    },
    wantCurves(rows) {
      wanted = rows.map((row) => row.name);
      clearTimeout(soon);
      // Later, because a slider that is dragged asks for others at every step.
      if (key(wanted) !== drawn && asking === null) soon = setTimeout(() => askCurves().catch(() => {}), CURVES_MS);
    },
  };
}
