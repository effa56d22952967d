import { setTimeout as delay } from 'node:timers/promises';
import { type AssignedPartition, type LogSlice, LogUnavailable, type ReadLimit } from '../port.ts';
import { decodeBlock } from './blocks.ts';
import { type Environment, endOf, keyOffset } from './environment.ts';

/** Reads one partition, block by block. */
export class PartitionCursor implements AssignedPartition {
  readonly partition: number;
  readonly revoked: AbortSignal;
  readonly #env: Environment;
  #position = 0;
  /** base offset of the block that holds `#position`, or -1: look for it */
  #base = -1;

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
    const parts: { bytes: Uint8Array; ends: Uint32Array }[] = [];
    let count = 0;
    let size = 0;
    while (this.#position < end && count < limit.records && (count === 0 || size < limit.bytes)) {
      const value = this.#env.blocks.getBinaryFast([this.partition, this.#base]);
      if (value === undefined) throw new Error(`block ${this.#base} of partition ${this.partition} is missing`);
      const block = decodeBlock(value);
      const skip = this.#position - this.#base;
      const before = skip === 0 ? 0 : block.end(skip - 1);
      let taken = 0;
      let until = before;
      while (skip + taken < block.count && count + taken < limit.records) {
        const next = block.end(skip + taken);
        if (count + taken > 0 && size + next - before > limit.bytes) break;
        until = next;
        taken++;
      }
      if (taken === 0) break;
      const ends = new Uint32Array(taken);
      for (let i = 0; i < taken; i++) ends[i] = size + block.end(skip + i) - before;
      // A copy: the value lives in LMDB's map only until the next read.
      parts.push({ bytes: new Uint8Array(value.subarray(block.bytesAt + before, block.bytesAt + until)), ends });
      count += taken;
      size += until - before;
      this.#position += taken;
      if (skip + taken < block.count) break;
      this.#base += block.count;
    }
    return { partition: this.partition, firstOffset, nextOffset: this.#position, count, ...join(parts, count, size) };
  }
}

function join(parts: readonly { bytes: Uint8Array; ends: Uint32Array }[], count: number, size: number) {
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return only;
  const bytes = Buffer.allocUnsafeSlow(size);
  const ends = new Uint32Array(count);
  let at = 0;
  let i = 0;
  for (const part of parts) {
    bytes.set(part.bytes, at);
    at += part.bytes.length;
    ends.set(part.ends, i);
    i += part.ends.length;
  }
  return { bytes, ends };
}
