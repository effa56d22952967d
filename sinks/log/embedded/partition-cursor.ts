import { setTimeout as delay } from 'node:timers/promises';
import { type AssignedPartition, type LogSlice, LogUnavailable, type ReadLimit } from '../port.ts';
import { type Block, decodeBlock } from './blocks.ts';
import { type Environment, endOf, keyOffset } from './environment.ts';

/** Reads one partition, block by block. */
export class PartitionCursor implements AssignedPartition {
  readonly partition: number;
  readonly revoked: AbortSignal;
  readonly #env: Environment;
  #position = 0;
  /** base offset of the block that holds `#position`, or -1: look for it */
  #base = -1;
  readonly #records = new Records();

  constructor(env: Environment, partition: number, revoked: AbortSignal) {
    this.#env = env;
    this.partition = partition;
    this.revoked = revoked;
  }

  seek(offset: number): void {
    this.#position = offset;
    this.#base = -1;
  }

  async read(limit: ReadLimit, waitMs: number): Promise<LogSlice | undefined> {
    const deadline = performance.now() + waitMs;
    for (;;) {
      if (this.revoked.aborted) return undefined;
      const slice = this.#take(limit);
      if (slice !== undefined) return slice;
      const left = deadline - performance.now();
      if (left <= 0) return undefined;
      await delay(Math.min(left, this.#env.options.pollMs));
    }
  }

  committed(offset: number): void {
    void this.#env.state.put(['committed', this.partition], offset);
  }

  #take(limit: ReadLimit): LogSlice | undefined {
    const { root } = this.#env;
    try {
      root.resetReadTxn();
      const end = endOf(this.#env, this.partition);
      if (this.#position >= end) return undefined;
      if (this.#base < 0) this.#base = this.#findBlock();
      return this.#collect(limit, end);
    } catch (error) {
      throw new LogUnavailable(`the embedded log can't read: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      });
    }
  }

  /** The block that holds the position; where retention has removed it, the oldest one. */
  #findBlock(): number {
    const { blocks } = this.#env;
    const [at] = blocks.getRange({
      start: [this.partition, this.#position],
      end: [this.partition, -1],
      reverse: true,
      limit: 1,
    });
    if (at !== undefined) return keyOffset(at.key);
    const [oldest] = blocks.getRange({ start: [this.partition, 0], end: [this.partition + 1, 0], limit: 1 });
    if (oldest === undefined) throw new Error(`partition ${this.partition} has an end but no block`);
    this.#position = keyOffset(oldest.key);
    return this.#position;
  }

  #collect(limit: ReadLimit, end: number): LogSlice {
    const firstOffset = this.#position;
    const records = this.#records;
    records.clear();
    while (
      this.#position < end &&
      records.count < limit.records &&
      (records.count === 0 || records.size < limit.bytes)
    ) {
      const value = this.#env.blocks.getBinaryFast([this.partition, this.#base]);
      if (value === undefined) throw new Error(`block ${this.#base} of partition ${this.partition} is missing`);
      const block = decodeBlock(value);
      const skip = this.#position - this.#base;
      const taken = records.append(value, block, skip, limit);
      this.#position += taken;
      if (skip + taken < block.count) break;
      this.#base += block.count;
    }
    return { partition: this.partition, firstOffset, nextOffset: this.#position, ...records.slice() };
  }
}

/** The records of one read, copied out of LMDB's map, where a value lives only until the next. Its memory is used again. */
class Records {
  count = 0;
  size = 0;
  #bytes = Buffer.allocUnsafeSlow(1 << 16);
  #ends = new Uint32Array(1 << 10);

  clear(): void {
    this.count = 0;
    this.size = 0;
  }

  /** Appends records of a block from number `skip` on, as many as the limit lets in, the first in any case. @returns how many */
  append(value: Buffer, block: Block, skip: number, limit: ReadLimit): number {
    const before = skip === 0 ? 0 : block.end(skip - 1);
    const first = this.count;
    const base = this.size - before;
    this.#reserve(first + Math.min(block.count - skip, limit.records - first));
    for (let i = skip; i < block.count && this.count < limit.records; i++) {
      const end = base + block.end(i);
      if (this.count > 0 && end > limit.bytes) break;
      this.#ends[this.count++] = end;
      this.size = end;
    }
    const from = base + before;
    if (this.size > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(Math.min(this.#bytes.length * 2, limit.bytes), this.size));
      this.#bytes.copy(grown, 0, 0, from);
      this.#bytes = grown;
    }
    value.copy(this.#bytes, from, block.bytesAt + before, block.bytesAt + this.size - base);
    return this.count - first;
  }

  slice(): { count: number; bytes: Uint8Array; ends: Uint32Array } {
    return { count: this.count, bytes: this.#bytes.subarray(0, this.size), ends: this.#ends.subarray(0, this.count) };
  }

  #reserve(count: number): void {
    if (count <= this.#ends.length) return;
    const grown = new Uint32Array(Math.max(this.#ends.length * 2, count));
    grown.set(this.#ends);
    this.#ends = grown;
  }
}
