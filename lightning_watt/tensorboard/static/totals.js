// What several runs used together, each joule once: what a resumed run had used before is in its total, and may be in another
// run's too. The rule is that of lightning_watt/run/lineage.py.

/**
 * @param {{own_j: number, session: string, resumes: string[], earlier_j: number}[]} rows
 * @param {function(Object): number} per what a joule of a row counts: 1 for their energy, its grams for their CO2e
 * @returns {{sum: number, share: number}} the sum, and its share of the sum of all totals
 */
export function totalOf(rows, per = () => 1) {
  const once = new Map(rows.map((row, at) => [row.session || at, row]));
  const own = new Map([...once].map(([session, row]) => [session, Math.max(0, row.own_j - row.earlier_j)]));
  let sum = [...once].reduce((so_far, [session, row]) => so_far + own.get(session) * per(row), 0);
  let before = []; // sessions that are not here, and what they used
  for (const row of once.values()) {
    const used = row.earlier_j - row.resumes.reduce((known, one) => known + (own.get(one) ?? 0), 0);
    const gone = row.resumes.filter((one) => !own.has(one));
    if (used <= 0 || (row.resumes.length && !gone.length)) continue;
    const shared = before.filter(([ids]) => gone.some((one) => ids.has(one)));
    before = before.filter((one) => !shared.includes(one));
    before.push([new Set([...gone, ...shared.flatMap(([ids]) => [...ids])]), Math.max(used * per(row), ...shared.map(([, most]) => most))]);
  }
  sum += before.reduce((so_far, [, most]) => so_far + most, 0);
  const all = rows.reduce((so_far, row) => so_far + row.own_j * per(row), 0);
  return { sum, share: all > 0 ? sum / all : 1 };
}
