// What the server knows. Addresses are relative to this file, so a path prefix or an experiment's address is kept.

const BASE = new URL("..", import.meta.url);

async function getJson(path, parameters = []) {
  const address = new URL(path, BASE);
  address.search = new URLSearchParams(parameters).toString();
  const answer = await fetch(address, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer.json();
}

export const fetchRuns = () => getJson("runs");

export const fetchRecord = (run) => getJson("record", [["run", run]]);

export const fetchStatement = (run) => getJson("statement", [["run", run]]);

export const fetchComparison = (runs) => getJson("compare", runs.map((run) => ["run", run]));

export const fetchEpochs = async (runs) => byRun(await getJson("epochs", runs.map((run) => ["run", run])));

export async function fetchCurves(runs, byDevice) {
  return byRun(await getJson("curves", [...runs.map((run) => ["run", run]), ...(byDevice ? [["by_device", "1"]] : [])]));
}

/** Something of each run by its name; a run may have the name of what every object has, such as "constructor". */
export const byRun = (found) => Object.assign(Object.create(null), found);

let loading = null;

/** plotly.js, loaded once; the promise fails with a sentence that says what to install. */
export function loadPlotly() {
  loading ??= (async () => {
    const address = new URL("plotly.js", BASE);
    const script = document.createElement("script");
    script.src = address.href;
    await new Promise((resolve) => {
      script.onload = script.onerror = resolve;
      document.head.append(script);
    });
    if (window.Plotly) return window.Plotly;
    const answer = await fetch(address);
    throw new Error(answer.status === 404 ? await answer.text() : "The charting library could not be loaded.");
  })();
  return loading;
}
