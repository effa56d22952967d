import { HEADER_V1, KIND, LIMITS, writeLong } from '../schemas/index.ts';
import type { RecordBatch } from '../sinks/index.ts';
import type { Attributes } from './attributes.ts';
import type { EventScan } from './event-scan.ts';

/** A range of bytes. */
export interface Range {
  bytes: Uint8Array;
  start: number;
  end: number;
}

export const textOf = ({ bytes, start, end }: Range): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8', start, end);

export function sameBytes(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): boolean {
  const length = aEnd - aStart;
  if (bEnd - bStart !== length) return false;
  for (let i = 0; i < length; i++) if (a[aStart + i] !== b[bStart + i]) return false;
  return true;
}

/** The envelope of one event, resolved; ranges with start -1 are absent. */
export interface Envelope {
  tenant: Range;
  key: Range;
  source: Range;
  keyedBySource: boolean;
  type: Range;
  timestamp: number;
  receivedAt: number;
  user: Range;
  request: Range;
}

const CLOUDEVENTS = Buffer.from('"cloudevents":{');
/** Longest the fixed parts of a record can be. */
const FIXED_BYTES = 256;

/** Records of one partition, growing. Avro single-object encoding of `event.v1.avsc`, field by field. */
export class RecordWriter {
  partition = 0;
  count = 0;
  #out = Buffer.allocUnsafeSlow(1 << 14);
  #at = 0;
  #ends = new Uint32Array(256);

  /** Begins anew for a partition; the memory stays. */
  begin(partition: number): void {
    this.partition = partition;
    this.count = 0;
    this.#at = 0;
  }

  /** Bytes of memory that it holds. */
  get capacity(): number {
    return this.#out.length;
  }

  batch(): RecordBatch {
    return {
      partition: this.partition,
      count: this.count,
      bytes: this.#out.subarray(0, this.#at),
      ends: this.#ends.subarray(0, this.count),
    };
  }

  /** Appends one record. @param bytes what the scan's ranges point into */
  write(envelope: Envelope, scan: EventScan, bytes: Uint8Array): void {
    const { attributes } = scan;
    this.#reserve(
      (scan.to - scan.from) * 2 + attributes.count * (LIMITS.attributeBytes + 32) + FIXED_BYTES + LONGEST_ENVELOPE,
    );
    const out = this.#out;
    for (let i = 0; i < 10; i++) out[this.#at++] = HEADER_V1[i] as number;
    this.#string(envelope.tenant.bytes, envelope.tenant.start, envelope.tenant.end);
    this.#string(envelope.key.bytes, envelope.key.start, envelope.key.end);
    this.#optional(envelope.source);
    out[this.#at++] = envelope.keyedBySource ? 1 : 0;
    this.#string(envelope.type.bytes, envelope.type.start, envelope.type.end);
    this.#at = writeLong(out, this.#at, envelope.timestamp);
    this.#at = writeLong(out, this.#at, envelope.receivedAt);
    this.#optional(envelope.user);
    this.#optional(envelope.request);
    if (attributes.count > 0) this.#at = writeLong(out, this.#at, attributes.count);
    for (let i = 0; i < attributes.count; i++) this.#attribute(attributes, bytes, i);
    out[this.#at++] = 0;
    this.#data(scan, bytes);
    if (this.count === this.#ends.length) {
      const ends = new Uint32Array(this.count * 2);
      ends.set(this.#ends);
      this.#ends = ends;
    }
    this.#ends[this.count++] = this.#at;
  }

  #attribute(attributes: Attributes, bytes: Uint8Array, i: number): void {
    this.#string(bytes, attributes.nameStarts[i] as number, attributes.nameEnds[i] as number);
    const kind = attributes.kinds[i] as number;
    this.#out[this.#at++] = kind * 2;
    if (kind === KIND.long) this.#at = writeLong(this.#out, this.#at, attributes.longs[i] as number);
    else if (kind === KIND.boolean) this.#out[this.#at++] = attributes.longs[i] as number;
    else this.#string(bytes, attributes.valueStarts[i] as number, attributes.valueEnds[i] as number);
  }

  /** The members that stay JSON, as one object. */
  #data(scan: EventScan, bytes: Uint8Array): void {
    const { members, extensions } = scan;
    if (members.length === 0 && extensions.length === 0) {
      this.#out[this.#at++] = 0;
      return;
    }
    let length = 2;
    for (let i = 0; i < members.length; i += 4)
      length += (members[i + 1] as number) - (members[i] as number) + (i > 0 ? 1 : 0);
    if (extensions.length > 0) {
      length += CLOUDEVENTS.length + 1 + (members.length > 0 ? 1 : 0);
      for (let i = 0; i < extensions.length; i += 2)
        length += (extensions[i + 1] as number) - (extensions[i] as number) + (i > 0 ? 1 : 0);
    }
    const out = this.#out;
    out[this.#at++] = 2;
    this.#at = writeLong(out, this.#at, length);
    out[this.#at++] = 123;
    for (let i = 0; i < members.length; i += 4) {
      if (i > 0) out[this.#at++] = 44;
      this.#bytes(bytes, members[i] as number, members[i + 1] as number);
    }
    if (extensions.length > 0) {
      if (members.length > 0) out[this.#at++] = 44;
      this.#bytes(CLOUDEVENTS, 0, CLOUDEVENTS.length);
      for (let i = 0; i < extensions.length; i += 2) {
        if (i > 0) out[this.#at++] = 44;
        this.#bytes(bytes, extensions[i] as number, extensions[i + 1] as number);
      }
      out[this.#at++] = 125;
    }
    out[this.#at++] = 125;
  }

  #optional(range: Range): void {
    this.#out[this.#at++] = range.start < 0 ? 0 : 2;
    if (range.start >= 0) this.#string(range.bytes, range.start, range.end);
  }

  #string(bytes: Uint8Array, start: number, end: number): void {
    this.#at = writeLong(this.#out, this.#at, end - start);
    this.#bytes(bytes, start, end);
  }

  #bytes(bytes: Uint8Array, start: number, end: number): void {
    const out = this.#out;
    let at = this.#at;
    if (end - start > 64) {
      out.set(bytes.subarray(start, end), at);
      at += end - start;
    } else for (let i = start; i < end; i++) out[at++] = bytes[i] as number;
    this.#at = at;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#out.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#out.length * 2, this.#at + bytes));
    this.#out.copy(grown, 0, 0, this.#at);
    this.#out = grown;
  }
}

/** Identifiers may come from a key instead of the event: their limits in bytes, added up. */
const LONGEST_ENVELOPE = 4096;

/** What a writer may hold to be kept, and how many are kept: 32 MB. */
const MOST_KEPT_BYTES = 1 << 20;
const MOST_KEPT = 32;

/** Writers to be used again: memory outside of V8's heap that is new with each request makes it collect all the time. */
export class RecordWriters {
  readonly #free: RecordWriter[] = [];

  take(partition: number): RecordWriter {
    const writer = this.#free.pop() ?? new RecordWriter();
    writer.begin(partition);
    return writer;
  }

  /** Only what nobody reads any more: not after an append whose end is unknown. */
  giveBack(writers: readonly RecordWriter[]): void {
    for (const writer of writers)
      if (writer.capacity <= MOST_KEPT_BYTES && this.#free.length < MOST_KEPT) this.#free.push(writer);
  }
}
