/** One event's JSON object → byte ranges: the envelope's fields, attributes, and what stays JSON. Reused for every event. */
import { type ErrorCode, KIND, LIMITS } from '../schemas/index.ts';
import { CHAR, type JsonScanner } from './json-scanner.ts';
import { formOf } from './numbers.ts';

/** Fields of the envelope, by index into `starts` and `ends`. */
export const FIELD = {
  customer_id: 0,
  idempotency_key: 1,
  request_id: 2,
  user_id: 3,
  type: 4,
  source: 5,
  timestamp: 6,
  subject: 7,
  specversion: 8,
  id: 9,
  time: 10,
  datacontenttype: 11,
} as const;
type FieldName = keyof typeof FIELD;
const FIELD_COUNT = 12;
const FIELD_NAMES: readonly string[] = Object.keys(FIELD);

/** Which members of an object are fields of the envelope, by mode. */
const LOG_FIELDS = byName(['timestamp', 'customer_id', 'idempotency_key', 'request_id', 'user_id', 'type', 'source']);
const DATA_FIELDS = byName(['customer_id', 'user_id', 'request_id']);
const CLOUD_FIELDS = byName(['specversion', 'id', 'source', 'type', 'subject', 'time', 'datacontenttype']);
const MOST = LIMITS.attributes;

type Mode = 'log' | 'cloudevent' | 'data';
const FIELDS_OF: Record<Mode, Map<number, { name: Buffer; field: number }[]>> = {
  log: LOG_FIELDS,
  cloudevent: CLOUD_FIELDS,
  data: DATA_FIELDS,
};

function byName(names: readonly FieldName[]) {
  return Map.groupBy(
    names.map((name) => ({ name: Buffer.from(name), field: FIELD[name] })),
    ({ name }) => name.length,
  );
}

export class EventScan {
  readonly starts = new Int32Array(FIELD_COUNT);
  readonly ends = new Int32Array(FIELD_COUNT);
  /** attributes: ranges of name and value, kind, and the value of a long or boolean */
  count = 0;
  readonly nameStarts = new Int32Array(MOST);
  readonly nameEnds = new Int32Array(MOST);
  readonly kinds = new Int8Array(MOST);
  readonly valueStarts = new Int32Array(MOST);
  readonly valueEnds = new Int32Array(MOST);
  readonly longs = new Float64Array(MOST);
  /** members that stay JSON, verbatim: [start, end) from the key's quote to the value's end, then the key's own range */
  members: number[] = [];
  /** CloudEvents extension attributes, likewise */
  extensions: number[] = [];
  /** where the event began and ended in the body */
  from = 0;
  to = 0;
  /** the first thing that is wrong with it */
  code: ErrorCode | null = null;
  field = '';
  detail = '';

  #scanner: JsonScanner;
  #seen = 0;

  constructor(scanner: JsonScanner) {
    this.#scanner = scanner;
  }

  /** Scans the value at the scanner's position as an event. @throws MalformedJson */
  scan(mode: 'log' | 'cloudevent'): void {
    const scanner = this.#scanner;
    this.starts.fill(-1);
    this.count = 0;
    this.members.length = 0;
    this.extensions.length = 0;
    this.code = null;
    this.#seen = 0;
    const first = scanner.peek();
    this.from = scanner.at;
    if (first !== CHAR.open) {
      this.#skip('', 0);
      this.refuse('invalid_event', '', 'an event is a JSON object');
    } else this.#object(mode);
    this.to = scanner.at;
    if (this.to - this.from > LIMITS.eventBytes) this.refuse('event_too_large', '', `${this.to - this.from} bytes`);
  }

  refuse(code: ErrorCode, field: string, detail: string): void {
    if (this.code !== null) return;
    this.code = code;
    this.field = field;
    this.detail = detail;
  }

  #object(mode: Mode): void {
    const scanner = this.#scanner;
    scanner.expect(CHAR.open);
    if (scanner.peek() === CHAR.close) {
      scanner.at++;
      return;
    }
    const fields = FIELDS_OF[mode];
    for (;;) {
      scanner.peek();
      const memberStart = scanner.at;
      scanner.string();
      const nameStart = scanner.stringStart;
      const nameEnd = scanner.stringEnd;
      this.#checkName(nameStart, nameEnd, scanner.stringBad);
      scanner.expect(CHAR.colon);
      const field = findField(fields, scanner.bytes, nameStart, nameEnd);
      if (field >= 0) this.#fieldValue(field);
      else if (mode !== 'cloudevent') this.#attribute(memberStart, nameStart, nameEnd);
      else this.#cloudEventMember(memberStart, nameStart, nameEnd);
      const next = scanner.peek();
      scanner.at++;
      if (next === CHAR.close) return;
      if (next !== CHAR.comma) {
        scanner.at--;
        scanner.fail('expected "," or "}"');
      }
    }
  }

  #fieldValue(field: number): void {
    const scanner = this.#scanner;
    if (scanner.peek() !== CHAR.quote) {
      const isNull = scanner.word('null');
      this.starts[field] = -1;
      if (isNull) return;
      this.refuse('invalid_field', FIELD_NAMES[field] ?? '', 'must be a string');
      this.#skip(FIELD_NAMES[field] ?? '', 1);
      return;
    }
    scanner.string();
    if (scanner.stringBad) this.refuse('invalid_character', FIELD_NAMES[field] ?? '', 'NUL or lone surrogate');
    this.starts[field] = scanner.stringStart;
    this.ends[field] = scanner.stringEnd;
  }

  #cloudEventMember(memberStart: number, nameStart: number, nameEnd: number): void {
    const scanner = this.#scanner;
    const name = scanner.text(nameStart, nameEnd);
    if (name === 'data') {
      const next = scanner.peek();
      if (next === CHAR.open) this.#object('data');
      else if (!scanner.word('null')) {
        this.#skip('data', 1);
        this.refuse('invalid_field', 'data', 'must be a JSON object');
      }
      return;
    }
    if (name === 'data_base64') {
      this.#skip(name, 1);
      this.refuse('invalid_field', name, 'binary data is not metered: send data as a JSON object');
      return;
    }
    this.#nested(`cloudevents.${name}`, 1);
    this.extensions.push(memberStart, scanner.at);
  }

  /** A member that is no field: a scalar becomes an attribute; what is nested, null or too long stays JSON. */
  #attribute(memberStart: number, nameStart: number, nameEnd: number): void {
    const scanner = this.#scanner;
    this.#forgetEarlier(nameStart, nameEnd);
    const { bytes } = scanner;
    let stays = nameEnd - nameStart > LIMITS.attributeBytes || nameEnd === nameStart;
    for (let i = nameStart; i < nameEnd; i++) if (bytes[i] === 46) stays = true;
    const next = scanner.peek();
    if (next === CHAR.open || next === CHAR.openArray) {
      this.#nested(scanner.text(nameStart, nameEnd), 1);
      stays = true;
    } else if (!this.#scalar(nameStart, nameEnd)) stays = true;
    if (stays) this.members.push(memberStart, scanner.at, nameStart, nameEnd);
  }

  /** Scans a scalar into an attribute. @returns false when it is none (null, too long, one too many) */
  #scalar(nameStart: number, nameEnd: number): boolean {
    const scanner = this.#scanner;
    const next = scanner.peek();
    if (next === CHAR.quote) {
      scanner.string();
      if (scanner.stringBad)
        this.refuse('invalid_character', scanner.text(nameStart, nameEnd), 'NUL or lone surrogate');
      const { stringStart, stringEnd } = scanner;
      return (
        stringEnd - stringStart <= LIMITS.attributeBytes &&
        this.#add(nameStart, nameEnd, KIND.string, stringStart, stringEnd, 0)
      );
    }
    if (next === 110 && scanner.word('null')) return false;
    if (next === 116 && scanner.word('true')) return this.#add(nameStart, nameEnd, KIND.boolean, 0, 0, 1);
    if (next === 102 && scanner.word('false')) return this.#add(nameStart, nameEnd, KIND.boolean, 0, 0, 0);
    if (this.#notANumber(nameStart, nameEnd)) return true;
    const start = scanner.at;
    scanner.number();
    if (scanner.plainDecimal) return this.#add(nameStart, nameEnd, KIND.decimal, start, scanner.at, 0);
    if (!Number.isNaN(scanner.integer)) return this.#add(nameStart, nameEnd, KIND.long, 0, 0, scanner.integer);
    return this.#decimal(nameStart, nameEnd, start, scanner.at);
  }

  #decimal(nameStart: number, nameEnd: number, start: number, end: number): boolean {
    const scanner = this.#scanner;
    const form = formOf(scanner.text(start, end));
    switch (form.kind) {
      case 'verbatim':
        return this.#add(nameStart, nameEnd, KIND.decimal, start, end, 0);
      case 'long':
        return this.#add(nameStart, nameEnd, KIND.long, 0, 0, form.value);
      case 'literal': {
        const at = scanner.append(form.text);
        return this.#add(nameStart, nameEnd, KIND.decimal, at, scanner.used, 0);
      }
      case 'out_of_range':
        this.refuse('number_out_of_range', scanner.text(nameStart, nameEnd), 'below 1e20 with at most 18 decimals');
        return true;
    }
  }

  /** `NaN` and `Infinity` are no JSON, but where they end is plain: only their event is lost. */
  #notANumber(nameStart: number, nameEnd: number): boolean {
    const scanner = this.#scanner;
    if (!scanner.word('NaN') && !scanner.word('Infinity') && !scanner.word('-Infinity')) return false;
    this.refuse('invalid_json', scanner.text(nameStart, nameEnd), 'NaN and Infinity are not JSON');
    return true;
  }

  #add(nameStart: number, nameEnd: number, kind: number, start: number, end: number, long: number): boolean {
    const at = this.count;
    if (at === MOST || nameEnd - nameStart > LIMITS.attributeBytes) return false;
    this.nameStarts[at] = nameStart;
    this.nameEnds[at] = nameEnd;
    this.kinds[at] = kind;
    this.valueStarts[at] = start;
    this.valueEnds[at] = end;
    this.longs[at] = long;
    this.count = at + 1;
    return true;
  }

  /** Flattens a value under a dotted name; everything below it is checked. */
  #nested(name: string, depth: number): void {
    const scanner = this.#scanner;
    const next = scanner.peek();
    if (next === CHAR.openArray || depth > LIMITS.nesting) {
      this.#skip(name, depth);
      return;
    }
    if (next !== CHAR.open) {
      const start = scanner.append(name);
      const end = scanner.used;
      this.#scalar(start, end);
      return;
    }
    scanner.at++;
    if (scanner.peek() === CHAR.close) {
      scanner.at++;
      return;
    }
    for (;;) {
      scanner.string();
      this.#checkName(scanner.stringStart, scanner.stringEnd, scanner.stringBad);
      const inner = `${name}.${scanner.text(scanner.stringStart, scanner.stringEnd)}`;
      scanner.expect(CHAR.colon);
      this.#nested(inner, depth + 1);
      const end = scanner.peek();
      scanner.at++;
      if (end === CHAR.close) return;
      if (end !== CHAR.comma) {
        scanner.at--;
        scanner.fail('expected "," or "}"');
      }
    }
  }

  /** Moves over any value without recursion, checking strings, names and depth. `closers` is the stack of open brackets. */
  #skip(field: string, depth: number): void {
    const scanner = this.#scanner;
    const closers: number[] = [];
    for (;;) {
      let next = scanner.peek();
      if (next === CHAR.open || next === CHAR.openArray) {
        scanner.at++;
        const closer = next + 2;
        if (closers.length + depth > LIMITS.nesting)
          this.refuse('too_deep', field, `more than ${LIMITS.nesting} levels`);
        if (scanner.peek() === closer) scanner.at++;
        else {
          closers.push(closer);
          if (closer === CHAR.close) this.#skipName();
          continue;
        }
      } else if (next === CHAR.quote) {
        scanner.string();
        if (scanner.stringBad) this.refuse('invalid_character', field, 'NUL or lone surrogate');
      } else if (!scanner.word('null') && !scanner.word('true') && !scanner.word('false') && !this.#notANumber(0, 0))
        scanner.number();
      for (;;) {
        const closer = closers.at(-1);
        if (closer === undefined) return;
        next = scanner.peek();
        scanner.at++;
        if (next === closer) closers.pop();
        else if (next === CHAR.comma) {
          if (closer === CHAR.close) this.#skipName();
          break;
        } else {
          scanner.at--;
          scanner.fail('expected "," or a closing bracket');
        }
      }
    }
  }

  #skipName(): void {
    const scanner = this.#scanner;
    scanner.string();
    this.#checkName(scanner.stringStart, scanner.stringEnd, scanner.stringBad);
    scanner.expect(CHAR.colon);
  }

  #checkName(start: number, end: number, bad: boolean): void {
    const scanner = this.#scanner;
    const { bytes } = scanner;
    const length = end - start;
    const first = bytes[start];
    const second = bytes[start + 1];
    // __proto__, constructor, prototype: a string is made only for names that begin like them.
    if (
      (length === 9 && (first === 95 || (first === 112 && second === 114))) ||
      (length === 11 && first === 99 && second === 111)
    ) {
      const name = scanner.text(start, end);
      if (name === '__proto__' || name === 'constructor' || name === 'prototype')
        this.refuse('forbidden_key', name, 'is no name');
    }
    let control = bad;
    for (let i = start; i < end; i++) if ((bytes[i] as number) < 32 || bytes[i] === 127) control = true;
    if (control) this.refuse('invalid_character', 'a name', 'control character or lone surrogate');
  }

  /** The last of two members of one name wins, as in JSON.parse. A 32-bit filter tells most events that they have none. */
  #forgetEarlier(start: number, end: number): void {
    const { bytes } = this.#scanner;
    const bit = 1 << ((end - start + (bytes[start] as number) * 7 + (bytes[end - 1] as number) * 3) & 31);
    const maybe = (this.#seen & bit) !== 0;
    this.#seen |= bit;
    if (!maybe) return;
    const name = this.#scanner.text(start, end);
    for (let i = this.count - 1; i >= 0; i--) {
      const other = this.#scanner.text(this.nameStarts[i] as number, this.nameEnds[i] as number);
      if (other === name || other.startsWith(`${name}.`)) this.#remove(i);
    }
    for (let i = 0; i < this.members.length; i += 4)
      if (this.#scanner.text(this.members[i + 2] as number, this.members[i + 3] as number) === name) {
        this.members.splice(i, 4);
        i -= 4;
      }
  }

  #remove(i: number): void {
    const last = this.count;
    for (const array of [this.nameStarts, this.nameEnds, this.kinds, this.valueStarts, this.valueEnds, this.longs])
      array.copyWithin(i, i + 1, last);
    this.count--;
  }

  /** Index of the attribute `name`, or -1. */
  find(name: string): number {
    const { bytes } = this.#scanner;
    const first = name.charCodeAt(0);
    for (let i = 0; i < this.count; i++) {
      const start = this.nameStarts[i] as number;
      const end = this.nameEnds[i] as number;
      // A string is made only for names that look like it.
      if (end - start === name.length && bytes[start] === first && this.#scanner.text(start, end) === name) return i;
    }
    return -1;
  }

  /** Sets the string attribute `name`, whatever the event says of it. */
  setText(name: string, text: string): void {
    for (let i = this.find(name); i >= 0; i = this.find(name)) this.#remove(i);
    const at = this.#scanner.append(name);
    const end = this.#scanner.used;
    const start = this.#scanner.append(text);
    this.#add(at, end, KIND.string, start, this.#scanner.used, 0);
  }

  /** Adds the string attribute `name` from a range, unless the event has one of that name. */
  addText(name: string, start: number, end: number): void {
    for (let i = 0; i < this.count; i++)
      if (this.#scanner.text(this.nameStarts[i] as number, this.nameEnds[i] as number) === name) return;
    const at = this.#scanner.append(name);
    this.#add(at, this.#scanner.used, KIND.string, start, end, 0);
  }
}

function findField(
  fields: Map<number, { name: Buffer; field: number }[]>,
  bytes: Uint8Array,
  start: number,
  end: number,
): number {
  const candidates = fields.get(end - start);
  if (candidates === undefined) return -1;
  next: for (let c = 0; c < candidates.length; c++) {
    const one = candidates[c];
    if (one === undefined) continue;
    const { name } = one;
    for (let i = 0; i < name.length; i++) if (name[i] !== bytes[start + i]) continue next;
    return one.field;
  }
  return -1;
}
