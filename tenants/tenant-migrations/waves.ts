/** How many tenants each wave covers, all before it included: a few, then shares of all. */
const SHARES = [0.25, 0.5, 1];

/**
 * The wave of each of `total` tenants, in their order.
 * @param first size of the first wave
 * @returns numbers from 1 up
 */
export function wavesOf(total: number, first: number): number[] {
  const ends = [Math.min(first, total)];
  for (const share of SHARES) ends.push(Math.max(ends.at(-1) ?? 0, Math.ceil(total * share)));
  const waves: number[] = [];
  let wave = 0;
  for (const [i, end] of ends.entries()) {
    if (end === (ends[i - 1] ?? 0)) continue;
    wave++;
    while (waves.length < end) waves.push(wave);
  }
  return waves;
}
