import type { RecordBatch } from '../port.ts';

/** Partition and offset of the block's first record. */
export type BlockKey = [partition: number, base: number];

/** A block as read: its records' bytes begin at `bytesAt` of the value. */
export interface Block {
  count: number;
  /** end of record i, relative to `bytesAt` */
  end(i: number): number;
  bytesAt: number;
}

/** Bytes that a batch takes as a block. */
export const blockSize = (batch: RecordBatch): number => 4 + batch.count * 4 + (batch.ends[batch.count - 1] ?? 0);

/** Count, ends, bytes; integers are 32-bit little-endian. @param into at least `blockSize` bytes @returns what was written */
export function encodeBlock(batch: RecordBatch, into: Buffer): Buffer {
  const head = 4 + batch.count * 4;
  const size = blockSize(batch);
  into.writeUInt32LE(batch.count, 0);
  for (let i = 0; i < batch.count; i++) into.writeUInt32LE(batch.ends[i] ?? 0, 4 + i * 4);
  into.set(batch.bytes.subarray(0, size - head), head);
  return into.subarray(0, size);
}

export function decodeBlock(value: Buffer): Block {
  const count = value.readUInt32LE(0);
  return { count, end: (i) => value.readUInt32LE(4 + i * 4), bytesAt: 4 + count * 4 };
}
