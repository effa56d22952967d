import { KEY_BYTES } from './port.ts';

/** Bits of a slot that hold the key's place, from 1; the rest is a tag of the key, so that most other keys need no look. */
const PLACE_BITS = 24;
const PLACE_MASK = (1 << PLACE_BITS) - 1;
/** Keys that a table can hold. */
export const MOST_KEYS = PLACE_MASK;

/**
 * An exact set of 128-bit keys: open addressing over the places of keys that stand packed in the order they came.
 * Keys are uniform hashes, so they hash themselves. Cleared, not made anew: its memory is the same from batch to batch.
 */
export class KeyTable {
  size = 0;
  /** four words a key */
  #words: Int32Array<ArrayBuffer>;
  /** 0: free */
  #slots: Int32Array<ArrayBuffer>;
  #mask: number;

  constructor(capacity = 1 << 12) {
    let slots = 16;
    while (slots < capacity * 2) slots *= 2;
    this.#words = new Int32Array(slots * 2);
    this.#slots = new Int32Array(slots);
    this.#mask = slots - 1;
  }

  /** Four words a key, in the order in which they came: valid until the next change. */
  get words(): Int32Array {
    return this.#words.subarray(0, this.size * 4);
  }

  /** Whether the key whose four words are given is in the set. */
  has(a: number, b: number, c: number, d: number): boolean {
    return this.#slots[this.#find(a, b, c, d)] !== 0;
  }

  /** @returns false when it was there already */
  add(a: number, b: number, c: number, d: number): boolean {
    if (this.size * 2 > this.#mask) this.#grow();
    const slot = this.#find(a, b, c, d);
    if (this.#slots[slot] !== 0) return false;
    const at = this.size * 4;
    this.#words[at] = a;
    this.#words[at + 1] = b;
    this.#words[at + 2] = c;
    this.#words[at + 3] = d;
    this.size++;
    this.#slots[slot] = (a & ~PLACE_MASK) | this.size;
    return true;
  }

  clear(): void {
    this.#slots.fill(0);
    this.size = 0;
  }

  #find(a: number, b: number, c: number, d: number): number {
    const words = this.#words;
    const slots = this.#slots;
    const mask = this.#mask;
    const tag = a & ~PLACE_MASK;
    let slot = b & mask;
    for (let held = slots[slot] as number; held !== 0; held = slots[slot] as number) {
      if ((held & ~PLACE_MASK) === tag) {
        const at = ((held & PLACE_MASK) - 1) * 4;
        if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d) break;
      }
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #grow(): void {
    const old = this.#words;
    const count = this.size;
    const slots = this.#slots.length * 2;
    this.#words = new Int32Array(slots * 2);
    this.#slots = new Int32Array(slots);
    this.#mask = slots - 1;
    this.size = 0;
    for (let at = 0; at < count * 4; at += 4)
      this.add(old[at] as number, old[at + 1] as number, old[at + 2] as number, old[at + 3] as number);
  }
}

/** Word `w` (big-endian, signed) of key `i` of packed keys. */
export function wordAt(keys: Buffer, i: number, w: number): number {
  const at = i * KEY_BYTES + w * 4;
  return (
    ((keys[at] as number) << 24) |
    ((keys[at + 1] as number) << 16) |
    ((keys[at + 2] as number) << 8) |
    (keys[at + 3] as number)
  );
}
