import { AvroCursor, HEADER_V1, isVersion1, writeLong } from '../../../schemas/index.ts';
import type { RecordBatch } from '../port.ts';
import { COMPRESSION_BITS, type Compression, compress } from './compression.ts';
import { crc32c } from './crc32c.ts';
import { CONFLUENT_HEADER_BYTES, type Framing } from './framing.ts';
import { AT, MAGIC, PREFIX } from './record-batch.ts';

/** Records [from, to) of a batch. */
export interface Piece {
  batch: RecordBatch;
  from: number;
  to: number;
}

/** Most that a record's own lengths and deltas take. */
const RECORD_OVERHEAD = 24;

/** Bytes that a piece takes in a record batch, at most and without its keys. */
export function sizeOf({ batch, from, to }: Piece): number {
  const start = from === 0 ? 0 : (batch.ends[from - 1] as number);
  return (batch.ends[to - 1] as number) - start + (to - from) * RECORD_OVERHEAD;
}

const cursor = new AvroCursor();

/**
 * Encodes records as one record batch, keyed by tenant, so that other producers and compaction tools see the same keys.
 * @param now Unix ms, the records' timestamp
 */
export async function writeBatch(
  pieces: readonly Piece[],
  framing: Framing,
  compression: Compression,
  now: number,
): Promise<Buffer> {
  let count = 0;
  let size = AT.records;
  for (const piece of pieces) {
    count += piece.to - piece.from;
    size += sizeOf(piece);
  }
  const writer = new RecordWriter(size + count * 16, framing);
  for (const piece of pieces) writer.write(piece);
  let out = writer.bytes();
  if (compression !== 'none') {
    const packed = await compress(out.subarray(AT.records), compression);
    const head = out.subarray(0, AT.records);
    out = Buffer.allocUnsafeSlow(AT.records + packed.length);
    head.copy(out);
    packed.copy(out, AT.records);
  }
  out.writeBigInt64BE(0n, AT.baseOffset);
  out.writeInt32BE(out.length - PREFIX, AT.length);
  out.writeInt32BE(-1, AT.leaderEpoch);
  out.writeInt8(MAGIC, AT.magic);
  out.writeInt16BE(COMPRESSION_BITS[compression], AT.attributes);
  out.writeInt32BE(count - 1, AT.lastOffsetDelta);
  out.writeBigInt64BE(BigInt(now), AT.baseTimestamp);
  out.writeBigInt64BE(BigInt(now), AT.maxTimestamp);
  // No producer id: a retried duplicate is harmless, the claim drops it.
  out.writeBigInt64BE(-1n, AT.producerId);
  out.writeInt16BE(-1, AT.producerEpoch);
  out.writeInt32BE(-1, AT.baseSequence);
  out.writeInt32BE(count, AT.count);
  out.writeUInt32BE(crc32c(out, AT.attributes), AT.crc);
  return out;
}

class RecordWriter {
  #out: Buffer;
  #at: number = AT.records;
  #delta = 0;
  readonly #header: Buffer | undefined;

  constructor(size: number, framing: Framing) {
    this.#out = Buffer.allocUnsafeSlow(size);
    if (framing.writeId === undefined) return;
    this.#header = Buffer.alloc(CONFLUENT_HEADER_BYTES);
    this.#header.writeUInt32BE(framing.writeId, 1);
  }

  bytes(): Buffer {
    return this.#out.subarray(0, this.#at);
  }

  write({ batch, from, to }: Piece): void {
    let start = from === 0 ? 0 : (batch.ends[from - 1] as number);
    for (let i = from; i < to; i++) {
      const end = batch.ends[i] as number;
      this.#record(batch.bytes, start, end);
      start = end;
    }
  }

  #record(bytes: Uint8Array, from: number, to: number): void {
    const isOurs = isVersion1(bytes, from, to);
    let keyStart = from;
    let keyEnd = from;
    if (isOurs) {
      // The tenant is the first field of the body.
      cursor.reset(bytes, from + HEADER_V1.length, to);
      keyStart = cursor.string();
      keyEnd = cursor.fail ? keyStart : cursor.at;
    }
    const header = isOurs ? this.#header : undefined;
    const bodyStart = header === undefined ? from : from + HEADER_V1.length;
    const keyLength = keyEnd - keyStart;
    const hasKey = keyLength > 0;
    const valueLength = to - bodyStart + (header?.length ?? 0);
    const delta = this.#delta++;
    const length =
      3 +
      varintBytes(delta) +
      varintBytes(hasKey ? keyLength : -1) +
      keyLength +
      varintBytes(valueLength) +
      valueLength;
    this.#reserve(length + 5);
    const out = this.#out;
    let at = writeLong(out, this.#at, length);
    out[at++] = 0; // attributes
    out[at++] = 0; // timestamp delta
    at = writeLong(out, at, delta);
    at = writeLong(out, at, hasKey ? keyLength : -1);
    for (let i = keyStart; i < keyEnd; i++) out[at++] = bytes[i] as number;
    at = writeLong(out, at, valueLength);
    if (header !== undefined) for (let i = 0; i < header.length; i++) out[at++] = header[i] as number;
    out.set(bytes.subarray(bodyStart, to), at);
    at += to - bodyStart;
    out[at++] = 0; // headers
    this.#at = at;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#out.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#out.length * 2, this.#at + bytes));
    this.#out.copy(grown, 0, 0, this.#at);
    this.#out = grown;
  }
}

function varintBytes(value: number): number {
  const zigzag = value >= 0 ? value * 2 : -value * 2 - 1;
  return zigzag < 128 ? 1 : zigzag < 16_384 ? 2 : zigzag < 2_097_152 ? 3 : zigzag < 268_435_456 ? 4 : 5;
}
