import type { MeterRow } from './meter-query.ts';

/**
 * Every window of every group: those that have no row are 0.
 * @param groups keys in the order of the rows @param rows by window, then group @param boundaries of the windows, Unix ms
 */
export async function* fillWindows(
  groups: readonly MeterRow['key'][],
  rows: AsyncIterable<MeterRow[]>,
  boundaries: readonly number[],
): AsyncGenerator<MeterRow[]> {
  const given = rowByRow(rows);
  try {
    let next = await given.next();
    for (let w = 1; w < boundaries.length; w++) {
      const windowStart = boundaries[w - 1] ?? 0;
      const windowEnd = boundaries[w] ?? 0;
      const out: MeterRow[] = [];
      for (const key of groups) {
        const row = next.done ? undefined : next.value;
        if (row !== undefined && row.windowStart === windowStart && sameKey(row.key, key)) {
          out.push(row);
          next = await given.next();
        } else out.push({ windowStart, windowEnd, key, value: '0' });
      }
      yield out;
    }
  } finally {
    // A reader that has enough leaves early: what is read from must end then too.
    await given.return(undefined);
  }
}

async function* rowByRow(chunks: AsyncIterable<MeterRow[]>): AsyncGenerator<MeterRow> {
  for await (const rows of chunks) yield* rows;
}

const sameKey = (a: MeterRow['key'], b: MeterRow['key']): boolean => a.every((part, i) => part === b[i]);
