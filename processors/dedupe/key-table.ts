import { KEY_BYTES } from './port.ts';

/** An exact set of 128-bit keys: open addressing over typed arrays. Keys are uniform hashes, so they hash themselves. */
export class KeyTable {
  size = 0;
  #words: Int32Array<ArrayBuffer>;
  #used: Uint8Array<ArrayBuffer>;
  #mask: number;

  constructor(capacity = 1 << 12) {
    let slots = 16;
    while (slots < capacity * 2) slots *= 2;
    this.#words = new Int32Array(slots * 4);
    this.#used = new Uint8Array(slots);
    this.#mask = slots - 1;
  }

  /** Whether the key whose four words are given is in the set. */
  has(a: number, b: number, c: number, d: number): boolean {
    return this.#used[this.#slot(a, b, c, d)] === 1;
  }

  /** @returns false when it was there already */
  add(a: number, b: number, c: number, d: number): boolean {
    if (this.size * 2 > this.#mask) this.#grow();
    const slot = this.#slot(a, b, c, d);
    if (this.#used[slot] === 1) return false;
    this.#used[slot] = 1;
    this.#words[slot * 4] = a;
    this.#words[slot * 4 + 1] = b;
    this.#words[slot * 4 + 2] = c;
    this.#words[slot * 4 + 3] = d;
    this.size++;
    return true;
  }

  #slot(a: number, b: number, c: number, d: number): number {
    const words = this.#words;
    const mask = this.#mask;
    let slot = b & mask;
    while (this.#used[slot] === 1) {
      const at = slot * 4;
      if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d) break;
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #grow(): void {
    const old = this.#words;
    const used = this.#used;
    const slots = used.length * 2;
    this.#words = new Int32Array(slots * 4);
    this.#used = new Uint8Array(slots);
    this.#mask = slots - 1;
    this.size = 0;
    for (let i = 0; i < used.length; i++)
      if (used[i] === 1)
        this.add(old[i * 4] as number, old[i * 4 + 1] as number, old[i * 4 + 2] as number, old[i * 4 + 3] as number);
  }

  /** All keys, packed as they came, in ascending order of their bytes. */
  sorted(): Buffer {
    const slots: number[] = [];
    for (let i = 0; i < this.#used.length; i++) if (this.#used[i] === 1) slots.push(i);
    const words = this.#words;
    slots.sort((x, y) => {
      for (let w = 0; w < 4; w++) {
        const difference = ((words[x * 4 + w] as number) >>> 0) - ((words[y * 4 + w] as number) >>> 0);
        if (difference !== 0) return difference;
      }
      return 0;
    });
    const packed = Buffer.allocUnsafe(slots.length * KEY_BYTES);
    slots.forEach((slot, i) => {
      for (let w = 0; w < 4; w++) packed.writeInt32BE(words[slot * 4 + w] as number, i * KEY_BYTES + w * 4);
    });
    return packed;
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
