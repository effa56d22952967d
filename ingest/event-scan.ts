/** One event's JSON object → byte ranges: the envelope's fields, attributes, and what stays JSON. Reused for every event. */
import { type ErrorCode, KIND, LIMITS } from '../schemas/index.ts';
import { Attributes, startsWith } from './attributes.ts';
import { FIELD_NAMES, MODE, type Mode, ROLE } from './event-fields.ts';
import { CHAR, type JsonScanner } from './json-scanner.ts';
import { MemberNames } from './member-names.ts';
import { formOf } from './numbers.ts';

export class EventScan {
  /** of the envelope's fields, by FIELD; -1 where absent */
  readonly starts = new Int32Array(FIELD_NAMES.length);
  readonly ends = new Int32Array(FIELD_NAMES.length);
  readonly attributes: Attributes;
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
  /** bits of the envelope's fields that hold control characters */
  controlled = 0;

  readonly #scanner: JsonScanner;
  readonly #names: MemberNames;

  constructor(scanner: JsonScanner) {
    this.#scanner = scanner;
    this.attributes = new Attributes(scanner);
    this.#names = new MemberNames(scanner);
  }

  /** The scanner has another body. */
  beginBody(): void {
    this.#names.beginBody();
  }

  /** Scans the value at the scanner's position as an event. @throws MalformedJson */
  scan(mode: Mode): void {
    const scanner = this.#scanner;
    this.starts.fill(-1);
    this.attributes.count = 0;
    this.members.length = 0;
    this.extensions.length = 0;
    this.code = null;
    this.controlled = 0;
    this.#names.beginEvent();
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
    const names = this.#names;
    let before: number = mode;
    for (;;) {
      scanner.peek();
      const memberStart = scanner.at;
      if (!names.guess(before)) this.#name(mode, before);
      before = names.id;
      const { role } = names;
      if (role >= 0) this.#fieldValue(role);
      else if (role === ROLE.attribute) this.#attribute(memberStart);
      else this.#cloudEventMember(role, memberStart);
      const next = scanner.peek();
      scanner.at++;
      if (next === CHAR.close) return;
      if (next !== CHAR.comma) {
        scanner.at--;
        scanner.fail('expected "," or "}"');
      }
    }
  }

  /** Reads a member's name and its colon. */
  #name(mode: Mode, before: number): void {
    const scanner = this.#scanner;
    const from = scanner.at;
    scanner.string();
    const { stringStart, stringEnd } = scanner;
    const isSound = this.#checkName(stringStart, stringEnd, scanner.stringBad);
    scanner.expect(CHAR.colon);
    this.#names.learn(before, mode, stringStart, stringEnd, isSound && stringStart === from + 1);
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
    if (scanner.stringControlled) this.controlled |= 1 << field;
    this.starts[field] = scanner.stringStart;
    this.ends[field] = scanner.stringEnd;
  }

  #cloudEventMember(role: number, memberStart: number): void {
    const scanner = this.#scanner;
    if (role === ROLE.data) {
      const next = scanner.peek();
      if (next === CHAR.open) this.#object(MODE.data);
      else if (!scanner.word('null')) {
        this.#skip('data', 1);
        this.refuse('invalid_field', 'data', 'must be a JSON object');
      }
    } else if (role === ROLE.dataBase64) {
      this.#skip('data_base64', 1);
      this.refuse('invalid_field', 'data_base64', 'binary data is not metered: send data as a JSON object');
    } else {
      this.#nested(`cloudevents.${scanner.text(this.#names.start, this.#names.end)}`, 1);
      this.extensions.push(memberStart, scanner.at);
    }
  }

  /** A member that is no field: a scalar becomes an attribute; what is nested, null or too long stays JSON. */
  #attribute(memberStart: number): void {
    const scanner = this.#scanner;
    const { start: nameStart, end: nameEnd } = this.#names;
    let { stays } = this.#names;
    if (this.#names.isRepeated()) this.#forgetEarlier(nameStart, nameEnd);
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
        this.attributes.add(nameStart, nameEnd, KIND.string, stringStart, stringEnd, 0)
      );
    }
    if (next === 110 && scanner.word('null')) return false;
    if (next === 116 && scanner.word('true')) return this.attributes.add(nameStart, nameEnd, KIND.boolean, 0, 0, 1);
    if (next === 102 && scanner.word('false')) return this.attributes.add(nameStart, nameEnd, KIND.boolean, 0, 0, 0);
    if (this.#notANumber(nameStart, nameEnd)) return true;
    const start = scanner.at;
    scanner.number();
    if (scanner.plainDecimal) return this.attributes.add(nameStart, nameEnd, KIND.decimal, start, scanner.at, 0);
    if (!Number.isNaN(scanner.integer))
      return this.attributes.add(nameStart, nameEnd, KIND.long, 0, 0, scanner.integer);
    return this.#decimal(nameStart, nameEnd, start, scanner.at);
  }

  #decimal(nameStart: number, nameEnd: number, start: number, end: number): boolean {
    const scanner = this.#scanner;
    const form = formOf(scanner.text(start, end));
    switch (form.kind) {
      case 'verbatim':
        return this.attributes.add(nameStart, nameEnd, KIND.decimal, start, end, 0);
      case 'long':
        return this.attributes.add(nameStart, nameEnd, KIND.long, 0, 0, form.value);
      case 'literal': {
        const at = scanner.append(form.text);
        return this.attributes.add(nameStart, nameEnd, KIND.decimal, at, scanner.used, 0);
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

  /** @returns whether it is a name */
  #checkName(start: number, end: number, bad: boolean): boolean {
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
      if (name === '__proto__' || name === 'constructor' || name === 'prototype') {
        this.refuse('forbidden_key', name, 'is no name');
        return false;
      }
    }
    let control = bad;
    for (let i = start; i < end; i++) if ((bytes[i] as number) < 32 || bytes[i] === 127) control = true;
    if (control) this.refuse('invalid_character', 'a name', 'control character or lone surrogate');
    return !control;
  }

  /** The last of two members of one name wins, as in JSON.parse. */
  #forgetEarlier(start: number, end: number): void {
    const { bytes } = this.#scanner;
    this.attributes.removeNamed(start, end);
    const { members } = this;
    for (let i = members.length - 4; i >= 0; i -= 4) {
      const from = members[i + 2] as number;
      const to = members[i + 3] as number;
      if (to - from === end - start && startsWith(bytes, from, to, start, end)) members.splice(i, 4);
    }
  }
}
