import { KIND, LIMITS } from '../schemas/index.ts';
import type { JsonScanner } from './json-scanner.ts';

const MOST = LIMITS.attributes;

/** The attributes of one event, as ranges of the scanner's bytes. Used again for the next one. */
export class Attributes {
  count = 0;
  readonly nameStarts = new Int32Array(MOST);
  readonly nameEnds = new Int32Array(MOST);
  readonly kinds = new Int8Array(MOST);
  readonly valueStarts = new Int32Array(MOST);
  readonly valueEnds = new Int32Array(MOST);
  /** the value of a long or boolean */
  readonly longs = new Float64Array(MOST);
  readonly #scanner: JsonScanner;

  constructor(scanner: JsonScanner) {
    this.#scanner = scanner;
  }

  /** @returns false when it is one too many, or its name is too long: it stays JSON */
  add(nameStart: number, nameEnd: number, kind: number, start: number, end: number, long: number): boolean {
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

  remove(i: number): void {
    const last = this.count;
    for (const array of [this.nameStarts, this.nameEnds, this.kinds, this.valueStarts, this.valueEnds, this.longs])
      array.copyWithin(i, i + 1, last);
    this.count--;
  }

  /** Removes what is named as the bytes say, or was nested below that name. */
  removeNamed(start: number, end: number): void {
    const { bytes } = this.#scanner;
    for (let i = this.count - 1; i >= 0; i--) {
      const from = this.nameStarts[i] as number;
      const to = this.nameEnds[i] as number;
      if (!startsWith(bytes, from, to, start, end)) continue;
      if (to - from === end - start || bytes[from + end - start] === DOT) this.remove(i);
    }
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
    for (let i = this.find(name); i >= 0; i = this.find(name)) this.remove(i);
    const at = this.#scanner.append(name);
    const end = this.#scanner.used;
    const start = this.#scanner.append(text);
    this.add(at, end, KIND.string, start, this.#scanner.used, 0);
  }

  /** Adds the string attribute `name` from a range, unless the event has one of that name. */
  addText(name: string, start: number, end: number): void {
    if (this.find(name) >= 0) return;
    const at = this.#scanner.append(name);
    this.add(at, this.#scanner.used, KIND.string, start, end, 0);
  }
}

export const DOT = 46;

/** Whether bytes [from, to) begin with bytes [start, end). */
export function startsWith(bytes: Uint8Array, from: number, to: number, start: number, end: number): boolean {
  const length = end - start;
  if (to - from < length) return false;
  for (let i = 0; i < length; i++) if (bytes[from + i] !== bytes[start + i]) return false;
  return true;
}
