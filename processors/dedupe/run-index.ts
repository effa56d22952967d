/**
 * Which of many runs may have a key: one filter for all of them, and for keys that it may have a hash table (linear
 * probing) of eight bits of each key and its run. A batch asks one filter, not one of every run, so runs need not be
 * merged to be few.
 */
import { BlockFilter } from './block-filter.ts';
import { CELL_BITS, CELLS, orderByCell, type Probe } from './probe.ts';

/** Runs that an index tells apart: eight bits. */
const MOST_RUNS = 256;
/** Some 2.5 % of new keys pass, and a twentieth of them meets its eight bits in the table. */
const FILTER_BITS = 12;
/** Slots taken when an index is full. With the filter 3.5 bytes a key. */
const MOST_LOAD = 0.9;
const TWO_32 = 4_294_967_296;
/** What an index sees of a key's words: 28 bits that place it, and 16; so the rest of a key takes one word beside its cell. */
const HIGH_MASK = ~0xf;
const LOW_MASK = ~0xffff;

/** The table's bits of a key, never 0. @param low only 16 bits count */
const markOf = (low: number): number => (low >>> 16) & 0xff || 1;

/**
 * What indexes need of a run's keys, stored with the run: the end of each cell, then four bytes a key, by cells: the
 * bits of its place that the cell does not tell, above 16 of the other word. Little-endian words.
 * @param words four words a key
 */
export function printsOf(words: Int32Array, count: number): Buffer {
  const highs = new Int32Array(count);
  for (let i = 0; i < count; i++) highs[i] = words[i * 4 + 2] as number;
  const { order, ends } = orderByCell(highs);
  const packed = new Int32Array(CELLS + count);
  packed.set(ends);
  for (let i = 0; i < count; i++) {
    const key = order[i] as number;
    packed[CELLS + i] = (((highs[key] as number) << CELL_BITS) & LOW_MASK) | ((words[key * 4 + 3] as number) >>> 16);
  }
  return Buffer.from(packed.buffer);
}

/** The probe as indexes see it. */
export const forIndexes = (probe: Probe): Probe => ({
  ...probe,
  highs: probe.highs.map((high) => high & HIGH_MASK),
  lows: probe.lows.map((low) => low & LOW_MASK),
});

/** @typeParam Run what tells a run from others */
export class RunIndex<Run extends { readonly keys: number }> {
  /** keys that it has room for */
  readonly capacity: number;
  readonly #filter: BlockFilter;
  /** a key's mark above its run; 0: free */
  readonly #slots: Uint16Array;
  /** null: forgotten */
  readonly #runs: (Run | null)[] = [];
  #keys = 0;
  #living = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.#filter = BlockFilter.forKeys(capacity, FILTER_BITS);
    this.#slots = new Uint16Array(slotsFor(capacity));
  }

  static bytesFor(capacity: number): number {
    return BlockFilter.bytesFor(capacity, FILTER_BITS) + slotsFor(capacity) * 2;
  }

  get byteLength(): number {
    return RunIndex.bytesFor(this.capacity);
  }

  /** Whether all of its runs are forgotten. */
  get isEmpty(): boolean {
    return this.#living === 0;
  }

  /** Whether a run of so many keys can be added. */
  hasRoom(keys: number): boolean {
    return this.#runs.length < MOST_RUNS && this.#keys + keys <= this.capacity;
  }

  /** @param prints as `printsOf` gave them, and the database keeps them */
  add(run: Run, prints: Buffer): void {
    const slots = this.#slots;
    const filter = this.#filter;
    const id = this.#runs.length;
    const packed = new Int32Array(prints.length / 4);
    Buffer.from(packed.buffer).set(prints);
    for (let cell = 0, i = CELLS; cell < CELLS; cell++)
      for (const end = CELLS + (packed[cell] as number); i < end; i++) {
        const print = packed[i] as number;
        const high = (cell << (32 - CELL_BITS)) | ((print & LOW_MASK) >>> CELL_BITS);
        const low = print << 16;
        filter.add(high, low);
        let slot = this.#placeOf(high);
        while (slots[slot] !== 0) if (++slot === slots.length) slot = 0;
        slots[slot] = (markOf(low) << 8) | id;
      }
    this.#runs.push(run);
    this.#keys += run.keys;
    this.#living++;
  }

  /** Its keys are no answer any more; their room is not given back before all runs are forgotten. */
  forget(run: Run): void {
    this.#runs[this.#runs.indexOf(run)] = null;
    this.#living--;
  }

  /**
   * Which keys may be in which runs? All others are in none of them.
   * @param probe as indexes see it
   * @param found is told an index in the probe, and a run
   */
  mayHave(probe: Probe, found: (at: number, run: Run) => void): void {
    const slots = this.#slots;
    for (const k of this.#filter.mayHave(probe)) {
      const mark = markOf(probe.lows[k] as number);
      let slot = this.#placeOf(probe.highs[k] as number);
      for (let held = slots[slot] as number; held !== 0; held = slots[slot] as number) {
        const run = held >>> 8 === mark ? this.#runs[held & 0xff] : null;
        if (run) found(k, run);
        if (++slot === slots.length) slot = 0;
      }
    }
  }

  #placeOf(high: number): number {
    return Math.floor(((high >>> 0) / TWO_32) * this.#slots.length);
  }
}

const slotsFor = (capacity: number): number => Math.ceil(capacity / MOST_LOAD) + 1;
