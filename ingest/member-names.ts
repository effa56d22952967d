import { LIMITS } from '../schemas/index.ts';
import { DOT } from './attributes.ts';
import { type Mode, roleOf } from './event-fields.ts';
import { CHAR, type JsonScanner } from './json-scanner.ts';

/** Names that are remembered, and the longest of them, bytes; others are read like new ones. */
const MOST = 128;
const LONGEST = 64;
/** The first ids stand for the beginnings of objects, by mode; then one for names that are not remembered. */
const UNKNOWN = 3;

/**
 * The names of members, and which mostly follows which. Events of one sender are alike, so that a name is known before
 * it is read: comparing it with the bytes is a third of reading, checking and looking it up.
 */
export class MemberNames {
  /** of the last name that was guessed or learned */
  id = 0;
  role = 0;
  start = 0;
  end = 0;
  /** as an attribute its member stays JSON */
  stays = false;

  readonly #scanner: JsonScanner;
  #count = UNKNOWN + 1;
  readonly #bytes = new Uint8Array(MOST * LONGEST);
  readonly #lengths = new Uint8Array(MOST);
  readonly #roles = new Int8Array(MOST);
  readonly #modes = new Int8Array(MOST);
  readonly #stays = new Uint8Array(MOST);
  /** ids of the two names that followed last; 0, which follows nothing: none */
  readonly #next = new Uint8Array(MOST);
  readonly #other = new Uint8Array(MOST);
  /** the last event that had the name */
  readonly #events = new Uint32Array(MOST);
  #event = 0;

  constructor(scanner: JsonScanner) {
    this.#scanner = scanner;
  }

  /** A new body: what others taught is of use, unless there is too much of it. */
  beginBody(): void {
    if (this.#count < MOST) return;
    this.#count = UNKNOWN + 1;
    this.#next.fill(0);
    this.#other.fill(0);
  }

  beginEvent(): void {
    this.#event = (this.#event + 1) >>> 0;
  }

  /** Whether the event may have had the last name before; asked once for each. */
  isRepeated(): boolean {
    const { id } = this;
    if (this.#events[id] === this.#event || this.#events[UNKNOWN] === this.#event) return true;
    this.#events[id] = this.#event;
    return id === UNKNOWN;
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
    const length = this.#lengths[id] as number;
    const start = at + 1;
    // With its quotes, and the colon right behind them.
    if (start + length + 1 >= end || bytes[at] !== CHAR.quote) return false;
    if (bytes[start + length] !== CHAR.quote || bytes[start + length + 1] !== CHAR.colon) return false;
    if (!this.#isNamed(id, bytes, start, length)) return false;
    this.#scanner.at = start + length + 2;
    this.id = id;
    this.role = this.#roles[id] as number;
    this.stays = this.#stays[id] === 1;
    this.start = start;
    this.end = start + length;
    return true;
  }

  #isNamed(id: number, bytes: Uint8Array, start: number, length: number): boolean {
    const known = this.#bytes;
    const from = id * LONGEST;
    for (let i = 0; i < length; i++) if (bytes[start + i] !== known[from + i]) return false;
    return true;
  }

  /** Takes a name that was read after `before`. @param isPlain it has no escapes, and nothing is wrong with it */
  learn(before: number, mode: Mode, start: number, end: number, isPlain: boolean): void {
    const { bytes } = this.#scanner;
    this.start = start;
    this.end = end;
    this.id = isPlain && end - start <= LONGEST ? this.#idOf(mode, start, end) : UNKNOWN;
    this.role = this.id === UNKNOWN ? roleOf(mode, bytes, start, end) : (this.#roles[this.id] as number);
    this.stays = this.id === UNKNOWN ? staysJson(bytes, start, end) : this.#stays[this.id] === 1;
    if (this.id === UNKNOWN || before === UNKNOWN) return;
    this.#other[before] = this.#next[before] as number;
    this.#next[before] = this.id;
  }

  /** @returns UNKNOWN where there are too many */
  #idOf(mode: Mode, start: number, end: number): number {
    const { bytes } = this.#scanner;
    const length = end - start;
    for (let id = UNKNOWN + 1; id < this.#count; id++)
      if (this.#modes[id] === mode && this.#lengths[id] === length && this.#isNamed(id, bytes, start, length))
        return id;
    if (this.#count === MOST) return UNKNOWN;
    const id = this.#count++;
    this.#bytes.set(bytes.subarray(start, end), id * LONGEST);
    this.#lengths[id] = length;
    this.#modes[id] = mode;
    this.#roles[id] = roleOf(mode, bytes, start, end);
    this.#stays[id] = staysJson(bytes, start, end) ? 1 : 0;
    return id;
  }
}

/** Names that are no attribute's: empty ones, those that are too long, and those that look like nested ones. */
function staysJson(bytes: Uint8Array, start: number, end: number): boolean {
  if (end === start || end - start > LIMITS.attributeBytes) return true;
  for (let i = start; i < end; i++) if (bytes[i] === DOT) return true;
  return false;
}
