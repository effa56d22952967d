import { type Mode, roleOf } from './event-fields.ts';
import { CHAR, type JsonScanner } from './json-scanner.ts';

/** Names that are remembered; further ones are read like new ones. */
const MOST = 128;
/** The first ids stand for the beginnings of objects, by mode; then one for names that are not remembered. */
const UNKNOWN = 3;

/**
 * The names of one body's members, and which mostly follows which. Events of one sender are alike, so that a name is
 * known before it is read: comparing it with the bytes is a third of reading, checking and looking it up.
 */
export class MemberNames {
  /** of the last name that was guessed or learned */
  id = 0;
  role = 0;
  start = 0;
  end = 0;

  readonly #scanner: JsonScanner;
  #count = UNKNOWN + 1;
  readonly #starts = new Int32Array(MOST);
  readonly #ends = new Int32Array(MOST);
  readonly #roles = new Int8Array(MOST);
  readonly #modes = new Int8Array(MOST);
  /** ids of the two names that followed last; 0, which follows nothing: none */
  readonly #next = new Uint8Array(MOST);
  readonly #other = new Uint8Array(MOST);

  constructor(scanner: JsonScanner) {
    this.#scanner = scanner;
  }

  /** Moves over a name and its colon, if it is one of those that followed `before`; otherwise moves nowhere. */
  guess(before: number): boolean {
    const next = this.#next[before] as number;
    if (next === 0) return false;
    if (this.#matches(next)) return true;
    const other = this.#other[before] as number;
    if (other === 0 || !this.#matches(other)) return false;
    this.#next[before] = other;
    this.#other[before] = next;
    return true;
  }

  #matches(id: number): boolean {
    const { bytes, at, end } = this.#scanner;
    const from = this.#starts[id] as number;
    const length = (this.#ends[id] as number) - from;
    const start = at + 1;
    // With its quotes, and the colon right behind them.
    if (start + length + 1 >= end || bytes[at] !== CHAR.quote) return false;
    for (let i = 0; i < length; i++) if (bytes[start + i] !== bytes[from + i]) return false;
    if (bytes[start + length] !== CHAR.quote || bytes[start + length + 1] !== CHAR.colon) return false;
    this.#scanner.at = start + length + 2;
    this.id = id;
    this.role = this.#roles[id] as number;
    this.start = start;
    this.end = start + length;
    return true;
  }

  /** Takes a name that was read after `before`. @param isPlain it has no escapes, and nothing is wrong with it */
  learn(before: number, mode: Mode, start: number, end: number, isPlain: boolean): void {
    this.start = start;
    this.end = end;
    this.id = isPlain ? this.#idOf(mode, start, end) : UNKNOWN;
    this.role = this.id === UNKNOWN ? roleOf(mode, this.#scanner.bytes, start, end) : (this.#roles[this.id] as number);
    if (this.id === UNKNOWN || before === UNKNOWN) return;
    this.#other[before] = this.#next[before] as number;
    this.#next[before] = this.id;
  }

  /** @returns UNKNOWN where there are too many */
  #idOf(mode: Mode, start: number, end: number): number {
    const { bytes } = this.#scanner;
    search: for (let id = UNKNOWN + 1; id < this.#count; id++) {
      const from = this.#starts[id] as number;
      if (this.#modes[id] !== mode || (this.#ends[id] as number) - from !== end - start) continue;
      for (let i = 0; i < end - start; i++) if (bytes[from + i] !== bytes[start + i]) continue search;
      return id;
    }
    if (this.#count === MOST) return UNKNOWN;
    const id = this.#count++;
    this.#starts[id] = start;
    this.#ends[id] = end;
    this.#modes[id] = mode;
    this.#roles[id] = roleOf(mode, bytes, start, end);
    return id;
  }
}
