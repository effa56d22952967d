import { Decimal } from 'decimal.js';

/**
 * Decimals of rating. Sums and products of what the contract admits (20 digits before the point, 18 behind) stay far
 * below 100 digits, so nothing is rounded before the one stated point; only a proration's division is cut, at its
 * hundredth digit, which no minor unit can see.
 */
export const Exact = Decimal.clone({
  precision: 100,
  rounding: Decimal.ROUND_HALF_UP,
  toExpNeg: -9e15,
  toExpPos: 9e15,
});
export type Exact = Decimal;
export const ZERO = new Exact(0);

const LITERAL = /^-?\d{1,20}(\.\d{1,18})?$/;

/**
 * A decimal of a request body: a decimal string, or a JSON number.
 * @returns undefined when it is neither, or outside |x| < 1e20 with at most 18 decimals
 */
export function readDecimal(value: unknown): Exact | undefined {
  if (typeof value === 'string') return LITERAL.test(value) ? new Exact(value) : undefined;
  if (typeof value !== 'number' || !Number.isFinite(value)) return undefined;
  const exact = new Exact(value);
  return LITERAL.test(exact.toFixed()) ? exact : undefined;
}

/** Shown to at most `places` decimals, half up, without an exponent and without trailing zeros. */
export const show = (value: Exact, places = 18): string =>
  (value.decimalPlaces() > places ? value.toDecimalPlaces(places) : value).toFixed();

/** Part of a whole period, to the second. */
export interface Fraction {
  seconds: number;
  of: number;
}

export const prorate = (value: Exact, fraction: Fraction | undefined): Exact =>
  fraction === undefined || fraction.seconds === fraction.of ? value : value.times(fraction.seconds).div(fraction.of);
