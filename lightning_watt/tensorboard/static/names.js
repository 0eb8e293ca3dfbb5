// Names that tell runs apart: without what they all share, and cut in the middle where there is no room for them.

/** Names without what those of the same depth share; the whole name where that would be ambiguous. */
export function shortNames(names) {
  const byDepth = new Map();
  for (const name of names) {
    const depth = name.split("/").length;
    if (!byDepth.has(depth)) byDepth.set(depth, []);
    byDepth.get(depth).push(name);
  }
  const short = new Map();
  for (const alike of byDepth.values()) {
    const labels = alike.length > 1 ? shortPaths(alike.map((name) => name.split("/"))) : [alike[0].split("/").slice(-2).join("/")];
    alike.forEach((name, at) => short.set(name, labels[at]));
  }
  const count = new Map();
  for (const label of short.values()) count.set(label, (count.get(label) ?? 0) + 1);
  return new Map(names.map((name) => [name, short.get(name) && count.get(short.get(name)) === 1 ? short.get(name) : name]));
}

/** Paths of one depth: without the folders that all share, and of the rest without the words that all share. */
function shortPaths(paths) {
  const columns = paths[0].map((_, at) => paths.map((path) => path[at]));
  const telling = columns.filter((folders) => new Set(folders).size > 1).map(shortFolders);
  return paths.map((_, run) => telling.map((folders) => folders[run]).join("/"));
}

function shortFolders(folders) {
  // Hydra's "lr=0.1,seed=3" has minus signs in its numbers.
  const separator = folders.every((folder) => folder.includes("=")) ? "," : "-";
  const words = folders.map((folder) => folder.split(separator));
  const even = words.every((one) => one.length === words[0].length);
  const same = (at) => words.every((one) => one[at] === words[0][at]);
  const short = even ? words.map((one) => one.filter((_, at) => !same(at))) : withoutEnds(words);
  const joined = short.map((one) => one.join(separator));
  return joined.every((one) => one) && new Set(joined).size === new Set(folders).size ? joined : folders;
}

/** Lists of words without those that all begin or end with; each keeps one word at least. */
function withoutEnds(lists) {
  const least = Math.min(...lists.map((words) => words.length));
  const same = (at) => lists.every((words) => words.at(at) === lists[0].at(at));
  let head = 0;
  let tail = 0;
  while (head < least - 1 && same(head)) head++;
  while (tail < least - 1 - head && same(-1 - tail)) tail++;
  return lists.map((words) => words.slice(head, words.length - tail));
}

const NUMBER = /^(?:version_)?[\d\W_]*$/;
const IS_NAME = ["timm_name", "model", "name"];
const FIRST = [...IS_NAME, "family", "phase"];
const FACTS = ["params", "gflops_per_sample", "settings", "seed"]; // they follow from others, or say nothing about the run
const MOST_TOLD = 3;

/**
 * The names of runs that are numbers, as Hydra's jobs and Lightning's versions are, with what tells them apart: the model, or
 * the fewest of their hyper-parameters.
 *
 * @param {Map<string, string>} short names by whole names
 * @param {Map<string, Map<string, string>>} settings hyper-parameters by whole names
 * @param {string[]} keys those that differ
 * @returns {Map<string, string>} names by whole names
 */
export function toldNames(short, settings, keys) {
  const folder = (label) => label.slice(0, label.lastIndexOf("/") + 1);
  const numbered = [...short].filter(([, label]) => NUMBER.test(label.slice(folder(label).length)));
  let told = new Map(numbered.map(([name, label]) => [name, [folder(label)]]));
  const kinds = (parts) => new Set([...parts.values()].map((one) => one.join("\n"))).size;
  const part = (key, value) => (value === undefined ? "" : IS_NAME.includes(key) ? value : `${key} ${rounded(value)}`);
  const others = keys.filter((key) => !FIRST.includes(key) && !FACTS.includes(key));
  for (const key of [...FIRST, ...others, ...FACTS].filter((key) => keys.includes(key))) {
    const more = new Map([...told].map(([name, parts]) => [name, [...parts, part(key, settings.get(name).get(key))]]));
    if (kinds(more) > kinds(told)) told = more;
    if (kinds(told) === told.size || [...told.values()][0].length > MOST_TOLD) break;
  }
  const names = numbered.map(([name, label]) => [name, [label, told.get(name).slice(1).filter(Boolean).join(", ")]]);
  return new Map([...short, ...names.map(([name, [label, more]]) => [name, more ? `${label} · ${more}` : label])]);
}

const rounded = (value) => (value.trim() !== "" && Number.isFinite(Number(value)) ? String(Number(Number(value).toPrecision(3))) : value);

/** A text that fits: of a long one the beginning and the end, which is where names differ. */
export function cut(text, length) {
  if (text.length <= length) return text;
  const tail = Math.floor((length - 1) / 2);
  return `${text.slice(0, length - 1 - tail)}…${text.slice(text.length - tail)}`;
}
