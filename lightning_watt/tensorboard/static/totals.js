// The energy of several runs, each joule once: what a resumed run had used before is in its total, and may be in another run's too.
// The rule is that of lightning_watt/run/lineage.py.

/**
 * @param {{joules: number, session: string, resumes: string[], earlier_j: number, inherited: number}[]} rows
 * @returns {{joules: number, share: number}} the sum, and its share of the sum of all totals
 */
export function totalOf(rows) {
  const own = new Map(rows.map((row, at) => [row.session || at, Math.max(0, row.own_j - row.earlier_j)]));
  const sessions = new Set(own.keys());
  let joules = [...own.values()].reduce((a, b) => a + b, 0);
  let before = []; // sessions that are not here, and what they used
  for (const row of rows) {
    const used = row.earlier_j - row.resumes.reduce((sum, one) => sum + (own.get(one) ?? 0), 0);
    const gone = row.resumes.filter((one) => !sessions.has(one));
    if (used <= 0 || (row.resumes.length && !gone.length)) continue;
    const shared = before.filter(([ids]) => gone.some((one) => ids.has(one)));
    before = before.filter((one) => !shared.includes(one));
    before.push([new Set([...gone, ...shared.flatMap(([ids]) => [...ids])]), Math.max(used, ...shared.map(([, most]) => most))]);
  }
  joules += before.reduce((sum, [, most]) => sum + most, 0);
  const all = rows.reduce((sum, row) => sum + row.own_j, 0);
  return { joules, share: all > 0 ? joules / all : 1 };
}
