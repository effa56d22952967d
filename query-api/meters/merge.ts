/** What PostgreSQL does not add up: sketches, merged from rows that come in the answer's order. */
import type { SketchSums } from '../../metering/index.ts';
import type { TextRow } from './snapshot.ts';

/** Adds a rollup row's bins: arrays as PostgreSQL writes them, or a coarse row's text. */
function addRow(sums: SketchSums, bins: Column, counts: Column, sketch: Column): void {
  if (sketch) sums.addText(sketch);
  if (!bins || !counts || bins === '{}') return;
  const keys = bins.slice(1, -1).split(',');
  const list = counts.slice(1, -1).split(',');
  for (let i = 0; i < keys.length; i++) sums.add(Number(keys[i]), Number(list[i]));
}
type Column = string | null | undefined;

/**
 * Adds up rows whose first `width` columns are the same; after them come bins, counts and sketch.
 * @param finish makes one row of the answer from the first of its rows; what `sums` holds is gone afterwards
 */
export async function* mergeRows<T>(
  chunks: AsyncIterable<TextRow[]>,
  width: number,
  sums: SketchSums,
  finish: (first: TextRow) => T | undefined,
): AsyncGenerator<T[]> {
  let first: TextRow | undefined;
  const end = (out: T[]) => {
    if (first === undefined) return;
    const made = finish(first);
    if (made !== undefined) out.push(made);
    sums.clear();
  };
  for await (const rows of chunks) {
    const out: T[] = [];
    for (const row of rows) {
      if (first === undefined || !sameStart(first, row, width)) {
        end(out);
        first = row;
      }
      addRow(sums, row[width], row[width + 1], row[width + 2]);
    }
    if (out.length > 0) yield out;
  }
  const out: T[] = [];
  end(out);
  if (out.length > 0) yield out;
}

function sameStart(a: TextRow, b: TextRow, width: number): boolean {
  for (let i = 0; i < width; i++) if (a[i] !== b[i]) return false;
  return true;
}
