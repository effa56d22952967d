import type { Series } from './row.ts';

/** Finds a series by its integers (meter, tenant, interned dimensions) without building a key. */
export class SeriesTable {
  readonly all: Series[] = [];
  readonly #stride: number;
  #keys: Int32Array<ArrayBuffer>;
  #hashes = new Int32Array(1024);
  #slots = new Int32Array(2048).fill(-1);

  /** @param width integers in a key */
  constructor(width: number) {
    this.#stride = width;
    this.#keys = new Int32Array(1024 * width);
  }

  /** @param key `width` integers @returns undefined when there is no such series yet: `add` it */
  find(key: Int32Array): Series | undefined {
    const hash = hashOf(key);
    const mask = this.#slots.length - 1;
    const stride = this.#stride;
    const keys = this.#keys;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const index = this.#slots[slot] as number;
      if (index < 0) return undefined;
      if (this.#hashes[index] !== hash) continue;
      let at = index * stride;
      let i = 0;
      while (i < stride && keys[at] === key[i]) {
        at++;
        i++;
      }
      if (i === stride) return this.all[index];
    }
  }

  add(key: Int32Array, series: Series): void {
    const index = this.all.push(series) - 1;
    if (index >= this.#hashes.length) {
      const hashes = new Int32Array(this.#hashes.length * 2);
      hashes.set(this.#hashes);
      this.#hashes = hashes;
      const keys = new Int32Array(this.#keys.length * 2);
      keys.set(this.#keys);
      this.#keys = keys;
    }
    this.#keys.set(key, index * this.#stride);
    this.#hashes[index] = hashOf(key);
    if (this.all.length * 2 > this.#slots.length) this.#slots = new Int32Array(this.#slots.length * 2).fill(-1);
    else {
      this.#place(index);
      return;
    }
    for (let i = 0; i < this.all.length; i++) this.#place(i);
  }

  #place(index: number): void {
    const mask = this.#slots.length - 1;
    let slot = (this.#hashes[index] as number) & mask;
    while ((this.#slots[slot] as number) >= 0) slot = (slot + 1) & mask;
    this.#slots[slot] = index;
  }
}

function hashOf(key: Int32Array): number {
  let hash = 0x811c9dc5 | 0;
  for (let i = 0; i < key.length; i++) {
    hash = Math.imul(hash ^ (key[i] as number), 0x01000193);
    hash ^= hash >>> 13;
  }
  return hash ^ (hash >>> 16);
}
