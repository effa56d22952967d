import { wordAt } from './key-table.ts';

/** Keys that filters and indexes are asked about, in ascending order of cells: whatever its size, each is read in one direction. */
export interface Probe {
  /** the two words of each key that filters look at: they place a key by the first */
  readonly highs: Int32Array;
  readonly lows: Int32Array;
  /** index of each key in the batch */
  readonly places: Int32Array;
  /** room for the indexes of keys that a filter looks at again */
  readonly passed: Int32Array;
}

/** Leading bits of `high` that are a key's cell. */
export const CELL_BITS = 12;
export const CELLS = 1 << CELL_BITS;

/** @returns 0 to `highs.length` in ascending order of cells, and where each cell ends in it */
export function orderByCell(highs: Int32Array): { order: Int32Array; ends: Int32Array } {
  const ends = new Int32Array(CELLS + 1);
  for (const high of highs) {
    const cell = high >>> (32 - CELL_BITS);
    ends[cell + 1] = (ends[cell + 1] as number) + 1;
  }
  for (let cell = 1; cell <= CELLS; cell++) ends[cell] = (ends[cell] as number) + (ends[cell - 1] as number);
  const order = new Int32Array(highs.length);
  for (let i = 0; i < highs.length; i++) {
    const cell = (highs[i] as number) >>> (32 - CELL_BITS);
    const at = ends[cell] as number;
    ends[cell] = at + 1;
    order[at] = i;
  }
  return { order, ends: ends.subarray(0, CELLS) };
}

/** @param places indexes of the keys to ask about in packed `keys` */
export function probeOf(keys: Buffer, places: Int32Array): Probe {
  const { order } = orderByCell(places.map((place) => wordAt(keys, place, 2)));
  const ordered = order.map((i) => places[i] as number);
  return {
    highs: ordered.map((place) => wordAt(keys, place, 2)),
    lows: ordered.map((place) => wordAt(keys, place, 3)),
    places: ordered,
    passed: new Int32Array(ordered.length),
  };
}
