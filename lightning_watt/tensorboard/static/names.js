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

/** A text that fits: of a long one the beginning and the end, which is where names differ. */
export function cut(text, length) {
  if (text.length <= length) return text;
  const tail = Math.floor((length - 1) / 2);
  return `${text.slice(0, length - 1 - tail)}…${text.slice(text.length - tail)}`;
}
