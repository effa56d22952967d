/**
 * Exact decimals: an unscaled integer and the number of its decimals. Unscaled values stay JavaScript numbers while
 * they are safe integers, which nearly all are, and become bigint where they are not: no digit is ever lost.
 */

/** A decimal read from bytes. Reused: `parseDecimal` overwrites it. */
export class Decimal {
  /** meaningful when `big` is null */
  unscaled = 0;
  big: bigint | null = null;
  /** digits behind the point, ≥ 0 */
  scale = 0;

  setInteger(value: number): void {
    this.unscaled = value;
    this.big = null;
    this.scale = 0;
  }

  /** The nearest double. */
  toNumber(): number {
    if (this.big !== null) return Number(formatDecimal(this.big, this.scale));
    return this.scale === 0 ? this.unscaled : this.unscaled / (POWERS[this.scale] ?? 10 ** this.scale);
  }

  toString(): string {
    return formatDecimal(this.big ?? BigInt(this.unscaled), this.scale);
  }
}

const POWERS = Array.from({ length: 16 }, (_, i) => 10 ** i);
const BIG_POWERS = Array.from({ length: 64 }, (_, i) => 10n ** BigInt(i));
const bigPower = (exponent: number): bigint => BIG_POWERS[exponent] ?? 10n ** BigInt(exponent);

/** At most this many decimals, and this many digits before the point (`LIMITS` in schemas/event.ts). */
const MAX_SCALE = 18;
const MAX_INTEGER_DIGITS = 20;

/**
 * Reads a plain decimal literal (`-?digits[.digits]`) from bytes [start, end).
 * @returns false when it is none, or outside the limits of a number
 */
export function parseDecimal(bytes: Uint8Array, start: number, end: number, into: Decimal): boolean {
  let at = start;
  const negative = bytes[at] === 45;
  if (negative) at++;
  const first = at;
  let point = -1;
  let value = 0;
  for (; at < end; at++) {
    const digit = (bytes[at] as number) - 48;
    if (digit >= 0 && digit <= 9) value = value * 10 + digit;
    else if (digit === -2 && point < 0 && at > first) point = at;
    else return false;
  }
  const digits = end - first - (point < 0 ? 0 : 1);
  const scale = point < 0 ? 0 : end - point - 1;
  if (digits === 0 || (point >= 0 && scale === 0) || scale > MAX_SCALE || digits - scale > MAX_INTEGER_DIGITS)
    return false;
  into.scale = scale;
  if (digits <= 15) {
    into.unscaled = negative ? -value : value;
    into.big = null;
    return true;
  }
  let text = '';
  for (let i = first; i < end; i++) if (i !== point) text += String.fromCharCode(bytes[i] as number);
  const big = BigInt(text);
  settle(into, negative ? -big : big);
  return true;
}

function settle(into: Decimal | ExactSum, value: bigint): void {
  if (value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)) {
    into.unscaled = Number(value);
    into.big = null;
  } else into.big = value;
}

/** Reads a decimal from text; @throws RangeError when it is none. */
export function decimalFrom(text: string): Decimal {
  const decimal = new Decimal();
  const bytes = Buffer.from(text, 'latin1');
  if (!parseUnlimited(text, decimal) && !parseDecimal(bytes, 0, bytes.length, decimal))
    throw new RangeError(`not a decimal: ${text}`);
  return decimal;
}

/** PostgreSQL's numeric may exceed an event's limits (sums do). */
function parseUnlimited(text: string, into: Decimal): boolean {
  const match = /^(-?\d+)(?:\.(\d+))?$/.exec(text);
  if (!match) return false;
  const fraction = match[2] ?? '';
  into.scale = fraction.length;
  settle(into, BigInt((match[1] ?? '') + fraction));
  return true;
}

/** The plain literal of an unscaled value. */
export function formatDecimal(unscaled: bigint, scale: number): string {
  if (scale === 0) return unscaled.toString();
  const digits = (unscaled < 0n ? -unscaled : unscaled).toString().padStart(scale + 1, '0');
  return `${unscaled < 0n ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}

/** Compares two decimals exactly: negative, zero or positive. */
export function compareDecimals(a: Decimal | ExactSum, b: Decimal | ExactSum): number {
  if (a.scale === b.scale && a.big === null && b.big === null) return a.unscaled - b.unscaled;
  const scale = Math.max(a.scale, b.scale);
  const left = (a.big ?? BigInt(a.unscaled)) * bigPower(scale - a.scale);
  const right = (b.big ?? BigInt(b.unscaled)) * bigPower(scale - b.scale);
  return left < right ? -1 : left > right ? 1 : 0;
}

/** A running exact sum. */
export class ExactSum {
  unscaled = 0;
  big: bigint | null = null;
  scale = 0;

  add(value: Decimal | ExactSum): void {
    if (this.big === null && value.big === null && this.scale === value.scale) {
      const sum = this.unscaled + value.unscaled;
      if (Number.isSafeInteger(sum)) {
        this.unscaled = sum;
        return;
      }
    }
    const scale = Math.max(this.scale, value.scale);
    const mine = (this.big ?? BigInt(this.unscaled)) * bigPower(scale - this.scale);
    const theirs = (value.big ?? BigInt(value.unscaled)) * bigPower(scale - value.scale);
    this.scale = scale;
    settle(this, mine + theirs);
  }

  set(value: Decimal | ExactSum): void {
    this.unscaled = value.unscaled;
    this.big = value.big;
    this.scale = value.scale;
  }

  toString(): string {
    return formatDecimal(this.big ?? BigInt(this.unscaled), this.scale);
  }
}
