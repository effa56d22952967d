/**
 * Reads the record sets of fetch responses into slices: record values only, one after another, each copied once out of
 * the network's buffer (which can then go). Whatever a foreign producer wrote becomes a record, never an exception.
 */
import { AvroCursor, HEADER_V1 } from '../../../schemas/index.ts';
import type { LogSlice, ReadLimit } from '../port.ts';
import { decompress } from './compression.ts';
import { crc32c } from './crc32c.ts';
import { CONFLUENT_HEADER_BYTES, confluentId, type Framing } from './framing.ts';
import { AT, CONTROL, MAGIC, PREFIX, TRANSACTIONAL } from './record-batch.ts';

/** What a fetch brought of one partition. */
export interface RecordSet {
  bytes: Buffer;
  /** transactions that were aborted, by first offset: their records are not to be seen */
  aborted: { producerId: bigint; firstOffset: number }[];
}

/** Where the last whole batch of a record set ends: the offset to fetch next, and the bytes up to there. */
export function wholeBatches(bytes: Buffer): { nextOffset: number; length: number } | undefined {
  let length = 0;
  let nextOffset = -1;
  for (let batch = boundsOf(bytes, 0); batch !== undefined; batch = boundsOf(bytes, length)) {
    length = batch.end;
    nextOffset = batch.nextOffset;
  }
  return length === 0 ? undefined : { nextOffset, length };
}

/** The whole batch (or message of an older magic) that starts at `at`. */
function boundsOf(bytes: Buffer, at: number): { end: number; baseOffset: number; nextOffset: number } | undefined {
  if (bytes.length - at <= AT.magic) return undefined;
  const end = at + PREFIX + bytes.readInt32BE(at + AT.length);
  if (end > bytes.length || end <= at + AT.magic) return undefined;
  const baseOffset = Number(bytes.readBigInt64BE(at));
  const last = isMagic2(bytes.subarray(at, end)) ? bytes.readInt32BE(at + AT.lastOffsetDelta) : 0;
  return { end, baseOffset, nextOffset: baseOffset + last + 1 };
}

const isMagic2 = (batch: Buffer): boolean => batch.length >= AT.records && batch[AT.magic] === MAGIC;

/** A batch being read: its records, unpacked. */
interface OpenBatch {
  baseOffset: number;
  nextOffset: number;
  /** undefined: not readable, the whole of it is one record */
  records: Buffer | undefined;
  whole: Buffer;
  at: number;
  left: number;
}

/** Takes slices out of record sets, in the order in which they were pushed. */
export class BatchReader {
  readonly #framing: Framing;
  readonly #sets: RecordSet[] = [];
  #set: RecordSet | undefined;
  #at = 0;
  #batch: OpenBatch | undefined;
  #position = 0;
  #aborting = new Set<bigint>();
  #waiting = 0;
  readonly #cursor = new AvroCursor();

  constructor(framing: Framing) {
    this.#framing = framing;
  }

  /** Bytes of record sets that are not read yet, as they came over the wire. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Whether there may be something to take. */
  get hasMore(): boolean {
    return this.#batch !== undefined || this.#set !== undefined || this.#sets.length > 0;
  }

  /** Forgets all; records below `offset` are skipped from now on. */
  reset(offset: number): void {
    this.#sets.length = 0;
    this.#set = undefined;
    this.#batch = undefined;
    this.#at = 0;
    this.#waiting = 0;
    this.#aborting.clear();
    this.#position = offset;
  }

  push(set: RecordSet): void {
    this.#sets.push(set);
    this.#waiting += set.bytes.length;
  }

  /**
   * Up to `limit` records, at least one if there is one. Where only transaction markers and aborted records were read,
   * the slice has no record but moves the offset.
   */
  async take(partition: number, limit: ReadLimit): Promise<LogSlice | undefined> {
    const from = this.#position;
    const out = new SliceWriter(partition, from, limit, this.#waiting);
    while (!out.isFull) {
      if (this.#batch === undefined && !(await this.#open())) break;
      const batch = this.#batch;
      if (batch === undefined) continue;
      await this.#learnSchemas(batch);
      this.#drain(batch, out);
      if (batch.left > 0) break;
      this.#position = batch.nextOffset;
      this.#batch = undefined;
    }
    if (out.count === 0 && this.#position === from) return undefined;
    return out.finish(this.#position);
  }

  /** Opens the next batch with something to read. @returns false when there is none */
  async #open(): Promise<boolean> {
    for (;;) {
      this.#set ??= this.#sets.shift();
      const set = this.#set;
      if (set === undefined) return false;
      if (this.#at >= set.bytes.length) {
        this.#waiting -= set.bytes.length;
        this.#set = undefined;
        this.#at = 0;
        continue;
      }
      const bounds = boundsOf(set.bytes, this.#at);
      if (bounds === undefined) {
        this.#at = set.bytes.length;
        continue;
      }
      const { end, baseOffset, nextOffset } = bounds;
      const whole = set.bytes.subarray(this.#at, end);
      this.#at = end;
      if (nextOffset <= this.#position) continue;
      if (this.#isHidden(set, whole, baseOffset)) {
        this.#position = nextOffset;
        continue;
      }
      const records = await this.#unpack(whole);
      const left = records === undefined ? 1 : whole.readInt32BE(AT.count);
      if (left <= 0) {
        // Compaction has emptied it.
        this.#position = nextOffset;
        continue;
      }
      this.#batch = { baseOffset, nextOffset, records, whole, at: 0, left };
      return true;
    }
  }

  /** Transaction markers, and records of aborted transactions (KIP-98; as Java's consumer with read_committed). */
  #isHidden(set: RecordSet, batch: Buffer, baseOffset: number): boolean {
    if (!isMagic2(batch)) return false;
    const attributes = batch.readInt16BE(AT.attributes);
    if ((attributes & TRANSACTIONAL) === 0) return false;
    const producerId = batch.readBigInt64BE(AT.producerId);
    for (const { producerId: id, firstOffset } of set.aborted)
      if (id === producerId && firstOffset <= baseOffset) this.#aborting.add(id);
    if ((attributes & CONTROL) === 0) return this.#aborting.has(producerId);
    set.aborted = set.aborted.filter((one) => one.producerId !== producerId || one.firstOffset > baseOffset);
    this.#aborting.delete(producerId);
    return true;
  }

  /** @returns undefined when the batch is of another magic, damaged, or packed by a codec that we don't have */
  async #unpack(batch: Buffer): Promise<Buffer | undefined> {
    if (!isMagic2(batch) || crc32c(batch, AT.attributes) !== batch.readUInt32BE(AT.crc)) return undefined;
    return decompress(batch.subarray(AT.records), batch.readInt16BE(AT.attributes));
  }

  /** With a registry: makes sure that every schema id of the batch is known. @throws {LogUnavailable} */
  async #learnSchemas(batch: OpenBatch): Promise<void> {
    if (this.#framing.writeId === undefined || batch.records === undefined || batch.at > 0) return;
    const unknown = new Set<number>();
    const cursor = this.#cursor;
    cursor.reset(batch.records, 0, batch.records.length);
    for (let i = 0; i < batch.left && !cursor.fail; i++) {
      if (!openRecord(cursor)) break;
      const { valueStart, valueEnd, end } = record;
      const id = confluentId(batch.records, valueStart, valueEnd);
      if (id >= 0 && this.#framing.knows(id) === undefined) unknown.add(id);
      cursor.at = end;
    }
    if (unknown.size > 0) await this.#framing.learn(unknown);
  }

  #drain(batch: OpenBatch, out: SliceWriter): void {
    const { records } = batch;
    if (records === undefined) {
      // One dead letter with all its bytes: the records in it can't be told apart.
      batch.left = 0;
      out.add(batch.whole, 0, batch.whole.length, Math.max(batch.baseOffset, this.#position));
      return;
    }
    const cursor = this.#cursor;
    cursor.reset(records, batch.at, records.length);
    while (batch.left > 0) {
      if (!openRecord(cursor)) {
        // The checksum was right, yet the records are not what the count says.
        out.add(records, batch.at, records.length, Math.max(batch.nextOffset - 1, this.#position));
        batch.left = 0;
        return;
      }
      const { valueStart, valueEnd, end, offsetDelta } = record;
      const offset = batch.baseOffset + offsetDelta;
      if (offset >= this.#position) {
        if (!out.hasRoom(valueEnd - valueStart)) return;
        const id = this.#framing.writeId === undefined ? -1 : confluentId(records, valueStart, valueEnd);
        if (id >= 0 && this.#framing.knows(id) === true)
          out.addBody(records, valueStart + CONFLUENT_HEADER_BYTES, valueEnd, offset);
        else out.add(records, valueStart, valueEnd, offset);
        this.#position = offset + 1;
      }
      batch.left--;
      batch.at = end;
      cursor.at = end;
    }
  }
}

/** The record that `openRecord` found last. A null value (a tombstone) is an empty one. */
const record = { offsetDelta: 0, valueStart: 0, valueEnd: 0, end: 0 };

/** Reads a record's lengths at the cursor. @returns false when it is damaged */
function openRecord(cursor: AvroCursor): boolean {
  const length = cursor.long();
  record.end = cursor.at + length;
  if (cursor.fail || length < 0 || record.end > cursor.end) return false;
  cursor.byte(); // attributes
  skipVarint(cursor); // timestamp delta: may be larger than a safe integer
  record.offsetDelta = cursor.long();
  const keyLength = cursor.long();
  if (keyLength > 0) cursor.at += keyLength;
  const valueLength = cursor.long();
  record.valueStart = cursor.at;
  record.valueEnd = cursor.at + Math.max(0, valueLength);
  return !cursor.fail && record.offsetDelta >= 0 && record.valueEnd <= record.end;
}

function skipVarint(cursor: AvroCursor): void {
  for (let i = 0; i < 10 && cursor.byte() >= 0x80; i++);
}

/** A slice that grows. */
class SliceWriter {
  readonly #partition: number;
  readonly #firstOffset: number;
  readonly #limit: ReadLimit;
  #bytes: Buffer;
  #ends: Uint32Array<ArrayBuffer>;
  #offsets: Float64Array | undefined;
  #at = 0;
  count = 0;

  /** @param expected bytes that are there to be taken, packed or not */
  constructor(partition: number, firstOffset: number, limit: ReadLimit, expected: number) {
    this.#partition = partition;
    this.#firstOffset = firstOffset;
    this.#limit = limit;
    this.#bytes = Buffer.allocUnsafeSlow(Math.min(limit.bytes, Math.max(expected, 1 << 14)));
    this.#ends = new Uint32Array(Math.min(limit.records, 1024));
  }

  get isFull(): boolean {
    return this.count >= this.#limit.records || this.#at >= this.#limit.bytes;
  }

  hasRoom(bytes: number): boolean {
    return this.count === 0 || (this.count < this.#limit.records && this.#at + bytes <= this.#limit.bytes);
  }

  add(from: Buffer, start: number, end: number, offset: number): void {
    this.#reserve(end - start);
    if (end > start) this.#at += from.copy(this.#bytes, this.#at, start, end);
    this.#end(offset);
  }

  /** A record of our schema whose header was another framing's. */
  addBody(from: Buffer, start: number, end: number, offset: number): void {
    this.#reserve(end - start + HEADER_V1.length);
    this.#at += HEADER_V1.copy(this.#bytes, this.#at);
    this.add(from, start, end, offset);
  }

  finish(nextOffset: number): LogSlice {
    const slice = {
      partition: this.#partition,
      firstOffset: this.#firstOffset,
      nextOffset,
      count: this.count,
      bytes: this.#bytes.subarray(0, this.#at),
      ends: this.#ends.subarray(0, this.count),
    };
    return this.#offsets === undefined ? slice : { ...slice, offsets: this.#offsets.subarray(0, this.count) };
  }

  #end(offset: number): void {
    if (this.count === this.#ends.length) this.#growEnds();
    if (this.#offsets === undefined && offset !== this.#firstOffset + this.count) {
      this.#offsets = new Float64Array(this.#ends.length);
      for (let i = 0; i < this.count; i++) this.#offsets[i] = this.#firstOffset + i;
    }
    if (this.#offsets !== undefined) this.#offsets[this.count] = offset;
    this.#ends[this.count++] = this.#at;
  }

  #growEnds(): void {
    const ends = new Uint32Array(this.#ends.length * 2);
    ends.set(this.#ends);
    this.#ends = ends;
    if (this.#offsets === undefined) return;
    const offsets = new Float64Array(ends.length);
    offsets.set(this.#offsets);
    this.#offsets = offsets;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, this.#at + bytes));
    this.#bytes.copy(grown, 0, 0, this.#at);
    this.#bytes = grown;
  }
}
