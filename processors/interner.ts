/**
 * Gives equal byte strings equal small integers, without making a JavaScript string of them: dimensions repeat
 * by the million. Bounded by its owner, which starts a new one when `size` has grown too far.
 */
export class Interner {
  size = 0;
  #slots = new Int32Array(1 << 12).fill(-1);
  #starts = new Int32Array(1 << 11);
  #ends = new Int32Array(1 << 11);
  #hashes = new Int32Array(1 << 11);
  #arena = Buffer.allocUnsafeSlow(1 << 16);
  #used = 0;
  #texts: (string | undefined)[] = [];

  /** The id of bytes [start, end): 0, 1, 2 … in order of first sight. */
  idOf(bytes: Uint8Array, start: number, end: number): number {
    let hash = 0x811c9dc5 | 0;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ (bytes[i] as number), 0x01000193);
    hash ^= hash >>> 15;
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (;;) {
      const id = this.#slots[slot] as number;
      if (id < 0) return this.#insert(bytes, start, end, hash, slot);
      if (this.#hashes[id] === hash && this.#equals(id, bytes, start, end)) return id;
      slot = (slot + 1) & mask;
    }
  }

  idOfText(text: string): number {
    const bytes = Buffer.from(text);
    return this.idOf(bytes, 0, bytes.length);
  }

  /** The bytes of an id as a string. */
  text(id: number): string {
    const known = this.#texts[id];
    if (known !== undefined) return known;
    const text = this.#arena.toString('utf8', this.#starts[id], this.#ends[id]);
    this.#texts[id] = text;
    return text;
  }

  #equals(id: number, bytes: Uint8Array, start: number, end: number): boolean {
    let at = this.#starts[id] as number;
    if ((this.#ends[id] as number) - at !== end - start) return false;
    const arena = this.#arena;
    for (let i = start; i < end; i++) if (arena[at++] !== bytes[i]) return false;
    return true;
  }

  #insert(bytes: Uint8Array, start: number, end: number, hash: number, slot: number): number {
    const id = this.size++;
    const length = end - start;
    if (this.#used + length > this.#arena.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(this.#arena.length * 2, this.#used + length));
      this.#arena.copy(grown, 0, 0, this.#used);
      this.#arena = grown;
    }
    if (id >= this.#starts.length) {
      this.#starts = grow(this.#starts);
      this.#ends = grow(this.#ends);
      this.#hashes = grow(this.#hashes);
    }
    this.#arena.set(bytes.subarray(start, end), this.#used);
    this.#starts[id] = this.#used;
    this.#used += length;
    this.#ends[id] = this.#used;
    this.#hashes[id] = hash;
    this.#slots[slot] = id;
    if (this.size * 2 > this.#slots.length) this.#rehash();
    return id;
  }

  #rehash(): void {
    const slots = new Int32Array(this.#slots.length * 2).fill(-1);
    const mask = slots.length - 1;
    for (let id = 0; id < this.size; id++) {
      let slot = (this.#hashes[id] as number) & mask;
      while ((slots[slot] as number) >= 0) slot = (slot + 1) & mask;
      slots[slot] = id;
    }
    this.#slots = slots;
  }
}

function grow(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(array.length * 2);
  grown.set(array);
  return grown;
}
