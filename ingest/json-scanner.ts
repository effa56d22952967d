/**
 * A single pass over JSON bytes (RFC 8259) that makes no objects: strings and numbers are byte ranges, so numbers
 * keep their source text, and one bad event does not cost its neighbours. Strings with escapes are decoded behind
 * the body in the same buffer: every range is a range of `bytes`.
 */

/** The bytes are not JSON; what follows `at` can't be trusted. */
export class MalformedJson extends Error {
  override name = 'MalformedJson';
  readonly at: number;
  constructor(at: number, detail: string) {
    super(detail);
    this.at = at;
  }
}

export const CHAR = {
  quote: 34,
  comma: 44,
  colon: 58,
  open: 123,
  close: 125,
  openArray: 91,
  closeArray: 93,
  backslash: 92,
} as const;

const DEL = 127;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\0-\x1f\x7f]/;
const NOTHING = Buffer.alloc(0);

export class JsonScanner {
  bytes: Buffer = NOTHING;
  at = 0;
  end = 0;
  /** range of the last string, without quotes, escapes decoded */
  stringStart = 0;
  stringEnd = 0;
  /** the last string was not well-formed Unicode, or held a NUL */
  stringBad = false;
  /** the last string held a control character (of those below 32 only escapes are JSON) */
  stringControlled = false;
  /** the last number: an integer of at most 15 digits has its value here, others are NaN */
  integer = 0;
  /** the last number is a plain decimal of few digits, as the log holds it */
  plainDecimal = false;
  #used = 0;

  begin(body: Buffer): void {
    this.bytes = body;
    this.at = 0;
    this.end = body.length;
    this.#used = body.length;
  }

  /** Lets go of the body. */
  release(): void {
    this.begin(NOTHING);
  }

  /** Moves over white space; returns the next byte, or -1 at the end. */
  peek(): number {
    const { bytes, end } = this;
    let at = this.at;
    while (at < end) {
      const byte = bytes[at] as number;
      if (byte !== 32 && byte !== 10 && byte !== 13 && byte !== 9) {
        this.at = at;
        return byte;
      }
      at++;
    }
    this.at = at;
    return -1;
  }

  expect(byte: number): void {
    if (this.peek() !== byte) this.fail(`expected "${String.fromCharCode(byte)}"`);
    this.at++;
  }

  fail(detail: string): never {
    throw new MalformedJson(this.at, this.at >= this.end ? 'it ends early' : detail);
  }

  /** Reads a string; its range is in `stringStart`, `stringEnd`. */
  string(): void {
    if (this.peek() !== CHAR.quote) this.fail('expected a string');
    const { bytes, end } = this;
    let at = this.at + 1;
    this.stringBad = false;
    this.stringControlled = false;
    this.stringStart = at;
    while (at < end) {
      const byte = bytes[at] as number;
      // Most are letters, behind all that is special but DEL.
      if (byte > CHAR.backslash) {
        if (byte === DEL) this.stringControlled = true;
      } else if (byte === CHAR.quote) {
        this.stringEnd = at;
        this.at = at + 1;
        return;
      } else if (byte === CHAR.backslash) {
        this.#escaped(at);
        return;
      } else if (byte < 32) break;
      at++;
    }
    this.at = at;
    this.fail('control character in a string');
  }

  #escaped(from: number): void {
    const start = this.stringStart;
    let at = from;
    while (at < this.end && this.bytes[at] !== CHAR.quote) at += this.bytes[at] === CHAR.backslash ? 2 : 1;
    if (at >= this.end) {
      this.at = this.end;
      this.fail('unterminated string');
    }
    let text: string;
    try {
      const parsed: unknown = JSON.parse(this.bytes.toString('utf8', start - 1, at + 1));
      text = String(parsed);
    } catch {
      this.at = from;
      this.fail('invalid escape in a string');
    }
    this.stringControlled = CONTROL.test(text);
    this.stringBad = text.includes('\0') || !text.isWellFormed();
    this.at = at + 1;
    const range = this.append(text);
    this.stringStart = range;
    this.stringEnd = this.#used;
  }

  /** Puts text behind the body; returns where it starts (it ends at the end of what is used). */
  append(text: string): number {
    const length = Buffer.byteLength(text);
    if (this.#used + length > this.bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.#used + length + 1024));
      grown.set(this.bytes.subarray(0, this.#used), 0);
      this.bytes = grown;
    }
    const start = this.#used;
    this.bytes.write(text, start, 'utf8');
    this.#used += length;
    return start;
  }

  /** Where appended text ends. */
  get used(): number {
    return this.#used;
  }

  /** Moves over a number; small integers leave their value in `integer`. */
  number(): void {
    const { bytes, end } = this;
    let at = this.at;
    const negative = bytes[at] === 45;
    if (negative) at++;
    const first = at;
    let value = 0;
    while (at < end) {
      const digit = (bytes[at] as number) - 48;
      if (!(digit >= 0 && digit <= 9)) break;
      value = value * 10 + digit;
      at++;
    }
    const count = at - first;
    if (count === 0 || (count > 1 && bytes[first] === 48)) this.fail('not a value');
    this.integer = count <= 15 ? (negative ? -value : value) + 0 : Number.NaN;
    this.plainDecimal = false;
    if (bytes[at] === 46) {
      this.integer = Number.NaN;
      const point = at;
      at = this.#digits(at + 1);
      this.plainDecimal = count <= 15 && at - point - 1 <= 15;
    }
    if (bytes[at] === 101 || bytes[at] === 69) {
      this.integer = Number.NaN;
      this.plainDecimal = false;
      at++;
      if (bytes[at] === 43 || bytes[at] === 45) at++;
      at = this.#digits(at);
    }
    this.at = at;
  }

  #digits(from: number): number {
    let at = from;
    while (at < this.end && (this.bytes[at] as number) >= 48 && (this.bytes[at] as number) <= 57) at++;
    if (at === from) {
      this.at = at;
      this.fail('expected a digit');
    }
    return at;
  }

  /** Moves over `word` if it is next. */
  word(word: string): boolean {
    for (let i = 0; i < word.length; i++)
      if (this.bytes[this.at + i] !== word.charCodeAt(i) || this.at + i >= this.end) return false;
    this.at += word.length;
    return true;
  }

  text(start: number, end: number): string {
    return this.bytes.toString('utf8', start, end);
  }
}
