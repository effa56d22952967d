import { isUtf8 } from 'node:buffer';
import { Decimal, parseDecimal } from '../metering/index.ts';
import { ATTRIBUTE_COLUMNS, type AttributeColumn, KIND, RAW_EVENT_COLUMNS } from '../schemas/index.ts';
import { type BinaryCopy, quoteIdentifier } from '../sinks/index.ts';
import { ABSENT, type AttributeNames, type EventView } from './event-view.ts';

export const COPY_EVENTS = `COPY events (${RAW_EVENT_COLUMNS.map(quoteIdentifier).join(', ')}) FROM STDIN (FORMAT binary)`;

const INT4_MAX = 2_147_483_647;
const DOT = 46;
const QUOTE = 34;

/** Why a row can't be stored. */
export type RawFault = 'invalid_character' | 'number_out_of_range' | undefined;

/** Writes events as rows of the raw table. One a partition owner: holds scratch memory. */
export class RawEventWriter {
  readonly #columnSlots: { slot: number; column: AttributeColumn }[];
  /** slots that meters read but that have no column: their values belong into `data` */
  readonly #plainSlots: number[];
  readonly #names: AttributeNames;
  readonly #nameBytes: Buffer[];
  readonly #decimal = new Decimal();
  #json = Buffer.allocUnsafeSlow(1 << 17);
  #length = 0;
  #bad = false;

  constructor(names: AttributeNames) {
    this.#names = names;
    this.#nameBytes = names.names.map((name) => Buffer.from(name));
    this.#columnSlots = ATTRIBUTE_COLUMNS.map((column) => ({ slot: names.slotOf(column.name), column }));
    const withColumn = new Set(this.#columnSlots.map(({ slot }) => slot));
    // A dotted name was nested: it stands in the event's own JSON already.
    this.#plainSlots = names.names.flatMap((name, slot) => (withColumn.has(slot) || name.includes('.') ? [] : [slot]));
  }

  /**
   * Appends one row, or nothing when it can't be stored.
   * @param ids the tenant's UUID and the claim key stand in these bytes, 16 each
   * @returns why it can't be stored
   */
  write(
    copy: BinaryCopy,
    event: EventView,
    place: { offset: number; shard: number },
    tenantId: Uint8Array,
    keys: Uint8Array,
    keyAt: number,
  ): RawFault {
    const mark = copy.mark();
    this.#bad = false;
    copy.row(RAW_EVENT_COLUMNS.length);
    copy.timestamptz(event.timestamp);
    copy.timestamptz(event.receivedAt);
    copy.int8(place.offset);
    copy.int4(place.shard);
    copy.uuid(tenantId, 0);
    copy.uuid(keys, keyAt);
    copy.bool(event.keyedBySource);
    this.#text(copy, event.bytes, event.keyStart, event.keyEnd);
    this.#optionalText(copy, event.bytes, event.sourceStart, event.sourceEnd);
    this.#text(copy, event.bytes, event.typeStart, event.typeEnd);
    this.#optionalText(copy, event.bytes, event.userStart, event.userEnd);
    this.#optionalText(copy, event.bytes, event.requestStart, event.requestEnd);
    this.#beginData();
    for (let c = 0; c < this.#columnSlots.length; c++) this.#column(copy, event, c);
    this.#data(copy, event);
    if (this.#bad) {
      copy.rewind(mark);
      return 'invalid_character';
    }
    return undefined;
  }

  #text(copy: BinaryCopy, bytes: Uint8Array, start: number, end: number): void {
    this.#check(bytes, start, end);
    copy.range(bytes, start, end);
  }

  #optionalText(copy: BinaryCopy, bytes: Uint8Array, start: number, end: number): void {
    if (start < 0) copy.null();
    else this.#text(copy, bytes, start, end);
  }

  /** PostgreSQL refuses NUL and invalid UTF-8: another producer may have written them. */
  #check(bytes: Uint8Array, start: number, end: number): void {
    let high = 0;
    for (let i = start; i < end; i++) {
      const byte = bytes[i] as number;
      high |= byte;
      if (byte === 0) this.#bad = true;
    }
    if (high >= 0x80 && !isUtf8(bytes.subarray(start, end))) this.#bad = true;
  }

  #column(copy: BinaryCopy, event: EventView, c: number): void {
    const entry = this.#columnSlots[c];
    if (entry === undefined) return;
    const { slot, column } = entry;
    const kind = event.kinds[slot] as number;
    if (kind === ABSENT) {
      copy.null();
      return;
    }
    const long = event.longs[slot] as number;
    const start = event.starts[slot] as number;
    const end = event.ends[slot] as number;
    if (column.holds === 'text' && kind === KIND.string) {
      this.#text(copy, event.bytes, start, end);
      return;
    }
    if (kind === KIND.long && column.holds === 'integer' && Math.abs(long) <= INT4_MAX) {
      copy.int4(long);
      return;
    }
    if (column.holds === 'numeric') {
      const decimal = this.#decimal;
      if (kind === KIND.long) {
        decimal.setInteger(long);
        copy.numeric(decimal);
        return;
      }
      if (kind === KIND.decimal && parseDecimal(event.bytes, start, end, decimal)) {
        copy.numeric(decimal);
        return;
      }
    }
    // Another kind than the column's: it stays in `data`, so that reading gives back what was sent.
    copy.null();
    this.#member(
      this.#nameBytes[slot] as Buffer,
      0,
      (this.#nameBytes[slot] as Buffer).length,
      event.bytes,
      kind,
      start,
      end,
      long,
    );
  }

  #data(copy: BinaryCopy, event: EventView): void {
    for (let i = 0; i < this.#plainSlots.length; i++) {
      const slot = this.#plainSlots[i] as number;
      const kind = event.kinds[slot] as number;
      if (kind === ABSENT) continue;
      const name = this.#nameBytes[slot] as Buffer;
      if (this.#isField(event, slot)) continue;
      this.#member(
        name,
        0,
        name.length,
        event.bytes,
        kind,
        event.starts[slot] as number,
        event.ends[slot] as number,
        event.longs[slot] as number,
      );
    }
    for (let i = 0; i < event.otherCount; i++) {
      const nameStart = event.otherNameStarts[i] as number;
      const nameEnd = event.otherNameEnds[i] as number;
      // A dotted name was nested: it stands in the event's own JSON already.
      if (event.bytes.subarray(nameStart, nameEnd).includes(DOT)) continue;
      this.#member(
        event.bytes,
        nameStart,
        nameEnd,
        event.bytes,
        event.otherKinds[i] as number,
        event.otherStarts[i] as number,
        event.otherEnds[i] as number,
        event.otherLongs[i] as number,
      );
    }
    if (event.dataStart >= 0) this.#splice(event.bytes, event.dataStart, event.dataEnd);
    if (this.#length === 1) {
      copy.null();
      return;
    }
    this.#json[this.#length++] = 125;
    copy.jsonb(this.#json, this.#length);
  }

  /** The slot holds a field of the event, which has a column of its own. */
  #isField(event: EventView, slot: number): boolean {
    const { userSlot, requestSlot } = this.#names;
    return (slot === userSlot && event.userStart >= 0) || (slot === requestSlot && event.requestStart >= 0);
  }

  #beginData(): void {
    this.#json[0] = 123;
    this.#length = 1;
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes + 8 <= this.#json.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#json.length * 2, this.#length + bytes + 8));
    this.#json.copy(grown, 0, 0, this.#length);
    this.#json = grown;
  }

  /** Members of the event's own JSON object text go in without being parsed. */
  #splice(bytes: Uint8Array, start: number, end: number): void {
    this.#check(bytes, start, end);
    let from = start;
    let to = end;
    while (from < to && (bytes[from] as number) <= 32) from++;
    while (from < to && (bytes[to - 1] as number) <= 32) to--;
    from++;
    to--;
    while (from < to && (bytes[from] as number) <= 32) from++;
    if (from >= to) return;
    this.#comma();
    this.#reserve(to - from);
    this.#json.set(bytes.subarray(from, to), this.#length);
    this.#length += to - from;
  }

  #comma(): void {
    if (this.#length > 1) this.#json[this.#length++] = 44;
  }

  #member(
    nameBytes: Uint8Array,
    nameStart: number,
    nameEnd: number,
    bytes: Uint8Array,
    kind: number,
    start: number,
    end: number,
    long: number,
  ): void {
    this.#reserve(64);
    this.#comma();
    this.#string(nameBytes, nameStart, nameEnd);
    this.#json[this.#length++] = 58;
    if (kind === KIND.string) this.#string(bytes, start, end);
    else if (kind === KIND.decimal) {
      this.#check(bytes, start, end);
      this.#reserve(end - start);
      this.#json.set(bytes.subarray(start, end), this.#length);
      this.#length += end - start;
    } else {
      const text = kind === KIND.boolean ? (long === 1 ? 'true' : 'false') : String(long);
      this.#reserve(32);
      this.#length += this.#json.write(text, this.#length, 'latin1');
    }
  }

  #string(bytes: Uint8Array, start: number, end: number): void {
    this.#check(bytes, start, end);
    this.#reserve((end - start) * 6 + 2);
    const json = this.#json;
    let at = this.#length;
    json[at++] = QUOTE;
    for (let i = start; i < end; i++) {
      const byte = bytes[i] as number;
      if (byte === QUOTE || byte === 92) {
        json[at++] = 92;
        json[at++] = byte;
      } else if (byte < 32) {
        at += json.write(`\\u${byte.toString(16).padStart(4, '0')}`, at, 'latin1');
      } else json[at++] = byte;
    }
    json[at++] = QUOTE;
    this.#length = at;
  }
}
