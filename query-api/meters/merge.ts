/** What PostgreSQL does not add up: sketches, merged from rows that come in the answer's order. */
import { readSketchText, valueOfBin } from '../../metering/index.ts';
import type { TextRow } from './snapshot.ts';

/** No number that an event may hold has a bin outside ± this (|x| < 1e20, see metering/sketch.ts). */
const MOST_BIN = 8_192;

/** Sketches added up: a dense array, because those of one meter overlap. */
export class SketchSums {
  readonly #counts = new Float64Array(MOST_BIN * 2 + 1);
  #low = MOST_BIN * 2;
  #high = 0;
  #total = 0;

  readonly add = (bin: number, count: number): void => {
    const at = bin + MOST_BIN;
    if (at < this.#low) this.#low = at;
    if (at > this.#high) this.#high = at;
    this.#counts[at] = (this.#counts[at] ?? 0) + count;
    this.#total += count;
  };

  clear(): void {
    if (this.#low <= this.#high) this.#counts.fill(0, this.#low, this.#high + 1);
    this.#low = MOST_BIN * 2;
    this.#high = 0;
    this.#total = 0;
  }

  /** The value at rank floor(q · (n - 1)), as metering/sketch.ts defines it; 0 when there is none. */
  quantile(q: number): number {
    const rank = Math.floor(q * (this.#total - 1));
    let upto = 0;
    for (let at = this.#low; at <= this.#high; at++) {
      upto += this.#counts[at] ?? 0;
      if (upto > rank) return valueOfBin(at - MOST_BIN);
    }
    return 0;
  }
}

/** Adds a rollup row's bins: arrays as PostgreSQL writes them, or a coarse row's text. */
function addRow(sums: SketchSums, bins: Column, counts: Column, sketch: Column): void {
  if (sketch) readSketchText(sketch, sums.add);
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
