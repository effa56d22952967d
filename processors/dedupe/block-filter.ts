/**
 * Split-block Bloom filter (Apache Parquet format, "Bloom Filter"; Putze, Sanders, Singler 2007): a key sets one bit
 * in each of the eight words of one 32-byte block, so a probe touches one cache line.
 */
import type { Probe } from './probe.ts';

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
/** About 0.1 % false positives: each costs a page of the database, some 7 µs. Stored filters of another width are read as they are. */
const BITS_PER_KEY = 16;
const TWO_32 = 4_294_967_296;

export class BlockFilter {
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #blocks: number;

  private constructor(words: Int32Array<ArrayBuffer>) {
    this.#words = words;
    this.#blocks = words.length / WORDS;
  }

  static forKeys(keys: number, bits = BITS_PER_KEY): BlockFilter {
    return new BlockFilter(new Int32Array(BlockFilter.bytesFor(keys, bits) / 4));
  }

  /** @param bits a key */
  static bytesFor(keys: number, bits = BITS_PER_KEY): number {
    return Math.max(1, Math.ceil((keys * bits) / (BLOCK_BYTES * 8))) * BLOCK_BYTES;
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

  /**
   * Which keys may be in the set? The others certainly are not. Some words are asked without a branch, so that the
   * reads of many blocks are under way at once; only keys that pass are asked about the rest.
   * @returns their indexes in the probe
   */
  mayHave({ highs, lows, passed }: Probe): number[] {
    const words = this.#words;
    let count = 0;
    for (let k = 0; k < highs.length; k++) {
      const at = this.#blockOf(highs[k] as number);
      const low = lows[k] as number;
      passed[count] = k;
      count += bitOf(words, at, 0, low) & bitOf(words, at, 1, low) & bitOf(words, at, 2, low);
    }
    const found: number[] = [];
    for (let p = 0; p < count; p++) {
      const k = passed[p] as number;
      const at = this.#blockOf(highs[k] as number);
      let word = 3;
      while (word < WORDS && bitOf(words, at, word, lows[k] as number) === 1) word++;
      if (word === WORDS) found.push(k);
    }
    return found;
  }

  #blockOf(high: number): number {
    return Math.floor(((high >>> 0) / TWO_32) * this.#blocks) * WORDS;
  }
}

/** The key's bit in one word of the block that begins at `at`. */
function bitOf(words: Int32Array, at: number, word: number, low: number): number {
  return ((words[at + word] as number) >>> (Math.imul(low, SALT[word] as number) >>> 27)) & 1;
}
