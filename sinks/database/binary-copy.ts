/**
 * Rows in PostgreSQL's binary COPY format (manual: "COPY", Binary Format; numeric as in `numeric_send`).
 * Built straight from byte ranges: no JavaScript string is made for a value that passes through.
 */

const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
/** Unix milliseconds of PostgreSQL's epoch, 2000-01-01. */
const PG_EPOCH_MS = 946_684_800_000;
const TWO_32 = 4_294_967_296;
const NUMERIC_NEGATIVE = 0x4000;
const POWERS_OF_TEN = [1, 10, 100, 1000];

/** What numeric columns take: an integer and the number of its decimals. */
export interface NumericValue {
  unscaled: number;
  big: bigint | null;
  scale: number;
}

/** A growing buffer of rows; `reset` makes it empty and keeps the memory. */
export class BinaryCopy {
  rows = 0;
  #out: Buffer;
  #at = 0;

  constructor(initialBytes = 1 << 16) {
    this.#out = Buffer.allocUnsafeSlow(initialBytes);
    this.reset();
  }

  reset(): void {
    this.rows = 0;
    this.#at = SIGNATURE.copy(this.#out, 0);
    this.#out.fill(0, this.#at, this.#at + 8);
    this.#at += 8;
  }

  /** Everything written, with the trailer: valid until the next write. */
  finish(): Buffer {
    this.#reserve(2);
    this.#out[this.#at] = 0xff;
    this.#out[this.#at + 1] = 0xff;
    return this.#out.subarray(0, this.#at + 2);
  }

  get bytes(): number {
    return this.#at;
  }

  /** Position to go back to with `rewind`, so that a row that turns out bad is taken back. */
  mark(): number {
    return this.#at;
  }
  rewind(mark: number): void {
    this.#at = mark;
    this.rows--;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#out.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#out.length * 2, this.#at + bytes));
    this.#out.copy(grown, 0, 0, this.#at);
    this.#out = grown;
  }

  row(fields: number): void {
    this.rows++;
    this.#reserve(2);
    this.#out[this.#at++] = fields >>> 8;
    this.#out[this.#at++] = fields & 0xff;
  }

  #int32(value: number): void {
    const out = this.#out;
    const at = this.#at;
    out[at] = value >>> 24;
    out[at + 1] = value >>> 16;
    out[at + 2] = value >>> 8;
    out[at + 3] = value;
    this.#at = at + 4;
  }

  null(): void {
    this.#reserve(4);
    this.#int32(-1);
  }

  bool(value: boolean): void {
    this.#reserve(5);
    this.#int32(1);
    this.#out[this.#at++] = value ? 1 : 0;
  }

  int4(value: number): void {
    this.#reserve(8);
    this.#int32(4);
    this.#int32(value);
  }

  /** @param value safe integer */
  int8(value: number): void {
    this.#reserve(12);
    this.#int32(8);
    this.#int64(value);
  }

  #int64(value: number): void {
    const high = Math.floor(value / TWO_32);
    this.#int32(high);
    this.#int32(value - high * TWO_32);
  }

  /** @param unixMs milliseconds since 1970, UTC */
  timestamptz(unixMs: number): void {
    this.int8((unixMs - PG_EPOCH_MS) * 1000);
  }

  /** 16 bytes at `from`. */
  uuid(bytes: Uint8Array, from: number): void {
    this.#reserve(20);
    this.#int32(16);
    const out = this.#out;
    let at = this.#at;
    for (let i = 0; i < 16; i++) out[at++] = bytes[from + i] as number;
    this.#at = at;
  }

  /** UTF-8 bytes [start, end): text, or bytea. */
  range(bytes: Uint8Array, start: number, end: number): void {
    const length = end - start;
    this.#reserve(length + 4);
    this.#int32(length);
    const out = this.#out;
    let at = this.#at;
    if (length > 64) {
      out.set(bytes.subarray(start, end), at);
      this.#at = at + length;
      return;
    }
    for (let i = start; i < end; i++) out[at++] = bytes[i] as number;
    this.#at = at;
  }

  text(value: string): void {
    const length = Buffer.byteLength(value);
    this.#reserve(length + 4);
    this.#int32(length);
    this.#at += this.#out.write(value, this.#at, 'utf8');
  }

  /** JSON text, which PostgreSQL parses. */
  jsonb(text: Uint8Array, length: number): void {
    this.#reserve(length + 5);
    this.#int32(length + 1);
    this.#out[this.#at++] = 1;
    this.#out.set(text.subarray(0, length), this.#at);
    this.#at += length;
  }

  numeric(value: NumericValue): void {
    this.#reserve(256);
    const { scale } = value;
    const pad = (4 - (scale & 3)) & 3;
    const fractionGroups = (scale + pad) >> 2;
    const start = this.#at;
    let at = start + 12;
    let groups = 0;
    const out = this.#out;
    const put = (group: number) => {
      out[at++] = group >>> 8;
      out[at++] = group & 0xff;
      groups++;
    };
    let negative: boolean;
    const factor = POWERS_OF_TEN[pad] as number;
    if (value.big === null && Math.abs(value.unscaled) <= Number.MAX_SAFE_INTEGER / factor) {
      negative = value.unscaled < 0;
      let rest = Math.abs(value.unscaled) * factor;
      let top = 1;
      while (rest >= top * 10_000) top *= 10_000;
      if (rest > 0) {
        for (; top >= 1; top /= 10_000) {
          const group = Math.floor(rest / top);
          rest -= group * top;
          put(group);
        }
      }
    } else {
      const big = (value.big ?? BigInt(value.unscaled)) * BigInt(factor);
      negative = big < 0n;
      const digits = (negative ? -big : big).toString();
      const lead = digits.length & 3;
      if (lead > 0) put(Number(digits.slice(0, lead)));
      for (let i = lead; i < digits.length; i += 4) put(Number(digits.slice(i, i + 4)));
    }
    const weight = groups - fractionGroups - 1;
    this.#at = start;
    this.#int32(8 + groups * 2);
    this.#int16(groups);
    this.#int16(groups === 0 ? 0 : weight);
    this.#int16(negative ? NUMERIC_NEGATIVE : 0);
    this.#int16(scale);
    this.#at = at;
  }

  #int16(value: number): void {
    this.#out[this.#at++] = (value >> 8) & 0xff;
    this.#out[this.#at++] = value & 0xff;
  }

  /** int[]: element type OID 23. */
  int4Array(values: ArrayLike<number>, length: number): void {
    this.#arrayHead(23, length, 8);
    for (let i = 0; i < length; i++) {
      this.#int32(4);
      this.#int32(values[i] as number);
    }
  }

  /** bigint[]: element type OID 20; safe integers. */
  int8Array(values: ArrayLike<number>, length: number): void {
    this.#arrayHead(20, length, 12);
    for (let i = 0; i < length; i++) {
      this.#int32(8);
      this.#int64(values[i] as number);
    }
  }

  /** text[]: element type OID 25. */
  textArray(values: readonly string[]): void {
    let size = 0;
    for (const value of values) size += Buffer.byteLength(value) + 4;
    this.#reserve(24 + size);
    const lengthAt = this.#at;
    this.#arrayHead(25, values.length, 0);
    for (const value of values) this.text(value);
    const end = this.#at;
    this.#at = lengthAt;
    this.#int32(end - lengthAt - 4);
    this.#at = end;
  }

  /** numeric[]: element type OID 1700. */
  numericArray(values: readonly NumericValue[], length: number): void {
    this.#reserve(24);
    const lengthAt = this.#at;
    this.#arrayHead(1700, length, 0);
    for (let i = 0; i < length; i++) this.numeric(values[i] as NumericValue);
    const end = this.#at;
    this.#at = lengthAt;
    this.#int32(end - lengthAt - 4);
    this.#at = end;
  }

  #arrayHead(elementType: number, length: number, elementBytes: number): void {
    this.#reserve(24 + length * elementBytes);
    if (length === 0) {
      this.#int32(12);
      this.#int32(0);
      this.#int32(0);
      this.#int32(elementType);
      return;
    }
    this.#int32(20 + length * elementBytes);
    this.#int32(1);
    this.#int32(0);
    this.#int32(elementType);
    this.#int32(length);
    this.#int32(1);
  }
}
