import { AvroCursor, type ErrorCode, isVersion1, KIND } from '../schemas/index.ts';
import { isRecordBatch } from '../sinks/index.ts';

/** How many attributes of one record are looked at; more make the record undecodable (the writer's limit is 64). */
const MAX_ATTRIBUTES = 256;
/** Kind of an attribute that the event does not have. */
export const ABSENT = -1;

/** Attribute names that have a slot: those with a column, and those that a meter reads. */
export class AttributeNames {
  readonly names: readonly string[];
  #bytes: Buffer[];
  #byLength: number[][] = [];
  /** slots of the event's own fields, where a meter reads them; -1 otherwise */
  readonly userSlot: number;
  readonly requestSlot: number;

  constructor(names: Iterable<string>) {
    this.names = [...new Set(names)];
    this.#bytes = this.names.map((name) => Buffer.from(name));
    this.#bytes.forEach((bytes, slot) => {
      const same = this.#byLength[bytes.length] ?? [];
      same.push(slot);
      this.#byLength[bytes.length] = same;
    });
    this.userSlot = this.slotOf('user_id');
    this.requestSlot = this.slotOf('request_id');
  }

  slotOf(name: string): number {
    return this.names.indexOf(name);
  }

  /** The slot of the name in bytes [start, end), or -1. */
  find(bytes: Uint8Array, start: number, end: number): number {
    const candidates = this.#byLength[end - start];
    if (candidates === undefined) return -1;
    next: for (let c = 0; c < candidates.length; c++) {
      const slot = candidates[c] as number;
      const name = this.#bytes[slot] as Buffer;
      for (let i = 0; i < name.length; i++) if (name[i] !== bytes[start + i]) continue next;
      return slot;
    }
    return -1;
  }
}

/** One record of the log, decoded into byte ranges of its slice. Reused for every record; makes no objects. */
export class EventView {
  bytes: Uint8Array = new Uint8Array(0);
  /** set by `open`/`decode` when they return false */
  fault: ErrorCode = 'undecodable';
  faultDetail = '';

  tenantStart = 0;
  tenantEnd = 0;
  keyStart = 0;
  keyEnd = 0;
  /** -1 where absent, here and below */
  sourceStart = -1;
  sourceEnd = 0;
  keyedBySource = false;

  typeStart = 0;
  typeEnd = 0;
  timestamp = 0;
  receivedAt = 0;
  userStart = -1;
  userEnd = 0;
  requestStart = -1;
  requestEnd = 0;
  dataStart = -1;
  dataEnd = 0;

  /** by slot of AttributeNames: kind (ABSENT, or KIND.*), byte range, and the value of a long (0/1 for a boolean) */
  readonly kinds: Int8Array;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  readonly longs: Float64Array;

  /** attributes without a slot: ranges of name and value */
  otherCount = 0;
  readonly otherNameStarts = new Int32Array(MAX_ATTRIBUTES);
  readonly otherNameEnds = new Int32Array(MAX_ATTRIBUTES);
  readonly otherKinds = new Int8Array(MAX_ATTRIBUTES);
  readonly otherStarts = new Int32Array(MAX_ATTRIBUTES);
  readonly otherEnds = new Int32Array(MAX_ATTRIBUTES);
  readonly otherLongs = new Float64Array(MAX_ATTRIBUTES);

  readonly names: AttributeNames;
  #cursor = new AvroCursor();

  constructor(names: AttributeNames) {
    this.names = names;
    const slots = names.names.length;
    this.kinds = new Int8Array(slots);
    this.starts = new Int32Array(slots);
    this.ends = new Int32Array(slots);
    this.longs = new Float64Array(slots);
  }

  /**
   * Reads the head of the record in [from, to): tenant, idempotency key and type, all that the claim needs.
   * @returns false with `fault` set when it is no event of a known schema
   */
  open(bytes: Uint8Array, from: number, to: number): boolean {
    this.bytes = bytes;
    if (!isVersion1(bytes, from, to)) return this.#refuseHeader(from, to);
    const cursor = this.#cursor;
    cursor.reset(bytes, from + 10, to);
    this.tenantStart = cursor.string();
    this.tenantEnd = cursor.at;
    this.keyStart = cursor.string();
    this.keyEnd = cursor.at;
    this.sourceStart = this.#optional();
    this.sourceEnd = cursor.at;
    this.keyedBySource = cursor.byte() === 1;
    this.typeStart = cursor.string();
    this.typeEnd = cursor.at;
    if (cursor.fail) return this.#refuse('undecodable', 'the record ends early');
    if (this.tenantEnd === this.tenantStart) return this.#refuse('missing_field', 'tenant is empty');
    if (this.keyEnd === this.keyStart) return this.#refuse('missing_field', 'idempotency_key is empty');
    return true;
  }

  /** Reads the rest of the record that `open` began. @returns false with `fault` set when it is damaged */
  decode(): boolean {
    const cursor = this.#cursor;
    this.timestamp = cursor.long();
    this.receivedAt = cursor.long();
    this.userStart = this.#optional();
    this.userEnd = cursor.at;
    this.requestStart = this.#optional();
    this.requestEnd = cursor.at;
    this.kinds.fill(ABSENT);
    this.otherCount = 0;
    for (let left = cursor.long(); left !== 0 && !cursor.fail; left = cursor.long()) {
      if (left < 0) {
        left = -left;
        cursor.long();
      }
      for (; left > 0 && !cursor.fail; left--) this.#attribute();
    }
    this.dataStart = this.#optional();
    this.dataEnd = cursor.at;
    if (cursor.fail || cursor.at !== cursor.end) return this.#refuse('undecodable', 'the record ends early or late');
    this.fillFields();
    return true;
  }

  /** The event's own fields are attributes to meters. */
  fillFields(): void {
    const { userSlot, requestSlot } = this.names;
    if (userSlot >= 0 && this.userEnd > this.userStart && this.userStart >= 0) {
      this.kinds[userSlot] = KIND.string;
      this.starts[userSlot] = this.userStart;
      this.ends[userSlot] = this.userEnd;
    }
    if (requestSlot >= 0 && this.requestEnd > this.requestStart && this.requestStart >= 0) {
      this.kinds[requestSlot] = KIND.string;
      this.starts[requestSlot] = this.requestStart;
      this.ends[requestSlot] = this.requestEnd;
    }
  }

  #attribute(): void {
    const cursor = this.#cursor;
    const nameStart = cursor.string();
    const nameEnd = cursor.at;
    const kind = cursor.byte() >> 1;
    let start = 0;
    let long = 0;
    if (kind === KIND.string || kind === KIND.decimal) start = cursor.string();
    else if (kind === KIND.long) long = cursor.long();
    else if (kind === KIND.boolean) long = cursor.byte();
    else cursor.fail = true;
    if (cursor.fail) return;
    const slot = this.names.find(this.bytes, nameStart, nameEnd);
    if (slot >= 0) {
      this.kinds[slot] = kind;
      this.starts[slot] = start;
      this.ends[slot] = cursor.at;
      this.longs[slot] = long;
      return;
    }
    const other = this.otherCount;
    if (other === MAX_ATTRIBUTES) {
      cursor.fail = true;
      return;
    }
    this.otherNameStarts[other] = nameStart;
    this.otherNameEnds[other] = nameEnd;
    this.otherKinds[other] = kind;
    this.otherStarts[other] = start;
    this.otherEnds[other] = cursor.at;
    this.otherLongs[other] = long;
    this.otherCount = other + 1;
  }

  #optional(): number {
    const branch = this.#cursor.byte();
    if (branch === 0) return -1;
    if (branch === 2) return this.#cursor.string();
    this.#cursor.fail = true;
    return -1;
  }

  /** The schema that the header names is none of ours, or there is no header. */
  #refuseHeader(from: number, to: number): false {
    const head = Buffer.from(this.bytes.subarray(from, Math.min(to, from + 10)));
    if (head.length === 10 && head[0] === 0xc3 && head[1] === 0x01)
      return this.#refuse('unknown_schema', `fingerprint ${head.toString('hex', 2)}`);
    if (isRecordBatch(this.bytes.subarray(from, to)))
      return this.#refuse(
        'undecodable',
        'a Kafka record batch that is damaged, too large or packed by an unknown codec',
      );
    // Confluent's wire format, left as it came because its id stands for no schema of ours, or no registry is configured.
    if (head.length > 5 && head[0] === 0) return this.#refuse('unknown_schema', `registry id ${head.readUInt32BE(1)}`);
    return this.#refuse('undecodable', 'no Avro single-object encoding');
  }

  #refuse(fault: ErrorCode, detail: string): false {
    this.fault = fault;
    this.faultDetail = detail;
    return false;
  }
}
