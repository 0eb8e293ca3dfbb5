// Names that tell runs apart: without what they all share, and cut in the middle where there is no room for them.

/** Names without what they all share; the whole names where that would be ambiguous. */
export function shortNames(names) {
  if (names.length < 2) return new Map(names.map((name) => [name, name.split("/").slice(-2).join("/")]));
  const paths = names.map((name) => name.split("/"));
  const even = paths.every((path) => path.length === paths[0].length);
  const short = even ? shortPaths(paths) : withoutEnds(paths).map((path) => path.join("/"));
  const clear = new Set(short).size === names.length && short.every((label) => label);
  return new Map(names.map((name, at) => [name, clear ? short[at] : name]));
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
