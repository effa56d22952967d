/**
 * Split-block Bloom filter (Apache Parquet format, "Bloom Filter"; Putze, Sanders, Singler 2007): a key sets one bit
 * in each of the eight words of one 32-byte block, so a probe touches one cache line.
 */
const SALT = Int32Array.of(
  0x47b6137b,
  0x44974d91,
  0x8824ad5b,
  0xa2b7289d,
  0x705495c7,
  0x2df1424b,
  0x9efc4947,
  0x5c6bfb31,
);
const WORDS = 8;
const BLOCK_BYTES = 32;
/** About 0.6 % false positives. */
const BITS_PER_KEY = 12;
const TWO_32 = 4_294_967_296;

export class BlockFilter {
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #blocks: number;

  private constructor(words: Int32Array<ArrayBuffer>) {
    this.#words = words;
    this.#blocks = words.length / WORDS;
  }

  static forKeys(keys: number): BlockFilter {
    return new BlockFilter(new Int32Array(Math.max(1, Math.ceil((keys * BITS_PER_KEY) / (BLOCK_BYTES * 8))) * WORDS));
  }

  /** Little-endian words, as `bytes` gave them. */
  static fromBytes(bytes: Buffer): BlockFilter {
    const words = new Int32Array(bytes.length / 4);
    Buffer.from(words.buffer).set(bytes);
    return new BlockFilter(words);
  }

  bytes(): Buffer {
    return Buffer.from(this.#words.buffer);
  }

  get byteLength(): number {
    return this.#words.byteLength;
  }

  /** @param high,low two independent words of the key */
  add(high: number, low: number): void {
    const at = this.#blockOf(high);
    for (let i = 0; i < WORDS; i++)
      this.#words[at + i] = (this.#words[at + i] as number) | (1 << (Math.imul(low, SALT[i] as number) >>> 27));
  }

  /** False: certainly not in the set. */
  mayHave(high: number, low: number): boolean {
    const at = this.#blockOf(high);
    for (let i = 0; i < WORDS; i++)
      if (((this.#words[at + i] as number) & (1 << (Math.imul(low, SALT[i] as number) >>> 27))) === 0) return false;
    return true;
  }

  #blockOf(high: number): number {
    return Math.floor(((high >>> 0) / TWO_32) * this.#blocks) * WORDS;
  }
}
