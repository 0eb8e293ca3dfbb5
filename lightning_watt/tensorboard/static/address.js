// What the person has chosen, in the address of TensorBoard's page, so that a view can be sent to somebody or kept.

import { OVER } from "./over.js";
import { SAM_UNITS } from "./metric.js";

const KEY = "view";
const MOST = 6000; // characters; longer addresses are cut off on their way
const MOST_TEXT = 300;

const isText = (value) => typeof value === "string" && value.length <= MOST_TEXT;
const isTexts = (value) => Array.isArray(value) && value.every(isText);
const isFlag = (value) => typeof value === "boolean";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** What of the state is kept, and what each may be: an address comes from anywhere. */
const KEPT = {
  filter: isText,
  hidden: isTexts,
  group: (value) => isText(value?.by) && isText(value?.pattern),
  scoring: (value) => isNumber(value?.alpha) && isNumber(value?.beta) && SAM_UNITS.includes(value?.unit),
  sort: (value) => isText(value?.key) && isFlag(value?.down),
  columns: isTexts,
  compared: (value) => isTexts(value) && value.length <= 2,
  over: (value) => OVER.includes(value),
  inherited: isFlag,
  logEnergy: isFlag,
  paths: isFlag,
  shares: isFlag,
  focus: isText,
};

const plain = (value) => (value instanceof Set ? [...value] : value);

/** The choices that differ from the usual ones, as text; empty where none does. */
export function toText(state, usual) {
  const chosen = {};
  for (const key of Object.keys(KEPT)) {
    const [now, before] = [plain(state[key]), plain(usual[key])];
    const isChosen = key === "scoring" ? state.scoringChosen : JSON.stringify(now) !== JSON.stringify(before);
    if (isChosen && now !== null) chosen[key] = now;
  }
  const text = JSON.stringify(chosen);
  if (text.length > MOST) delete chosen.hidden; // hundreds of names
  return Object.keys(chosen).length ? JSON.stringify(chosen) : "";
}

/** The choices in a text; what is none in it is left out. */
export function fromText(text) {
  let found = null;
  try {
    found = JSON.parse(text);
  } catch {
    return {};
  }
  if (typeof found !== "object" || found === null) return {};
  const patch = {};
  for (const [key, isGood] of Object.entries(KEPT)) if (Object.hasOwn(found, key) && isGood(found[key])) patch[key] = found[key];
  if (patch.hidden) patch.hidden = new Set(patch.hidden);
  if (patch.scoring) patch.scoringChosen = true;
  return patch;
}

/** Keeps the choices of a store in the address of a window, and takes them from there. */
export function keepInAddress(store, page) {
  const usual = { ...store.state };
  const unchosen = { scoringChosen: false, ...Object.fromEntries(Object.keys(KEPT).map((key) => [key, usual[key]])) };
  let timer = null;
  let kept = read();

  function read() {
    return new URLSearchParams(page.location.hash.slice(1)).get(KEY) ?? "";
  }

  function write(text) {
    const others = page.location.hash.slice(1).split("&").filter((part) => part && !part.startsWith(`${KEY}=`));
    const parts = [...others, ...(text ? [`${KEY}=${encodeURIComponent(text)}`] : [])];
    page.history.replaceState(page.history.state, "", `#${parts.join("&")}`);
  }

  if (kept) store.set(fromText(kept));
  page.addEventListener("hashchange", () => {
    const text = read();
    if (text && text !== kept) store.set({ ...unchosen, ...fromText((kept = text)) });
  });
  store.subscribe((state) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const text = toText(state, usual);
      if (text === kept) return;
      kept = text;
      write(text);
    }, 250);
  });
}
