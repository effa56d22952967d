import { LIMITS } from '../schemas/index.ts';

/** A JSON number literal as an attribute: an integer of at most 15 digits, or a plain decimal literal. */
export type NumberForm =
  | { kind: 'long'; value: number }
  /** the literal as sent is plain already */
  | { kind: 'verbatim' }
  | { kind: 'literal'; text: string }
  | { kind: 'out_of_range' };

const OUT_OF_RANGE: NumberForm = { kind: 'out_of_range' };
const VERBATIM: NumberForm = { kind: 'verbatim' };
const INTEGER_DIGITS = 20;

/**
 * Brings a literal (RFC 8259 grammar, checked by the scanner) into the form that the log holds: no exponent, all
 * digits kept. @returns `out_of_range` for |x| ≥ 1e20 or more than 18 decimals
 */
export function formOf(literal: string): NumberForm {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(literal);
  if (match === null) return OUT_OF_RANGE;
  const [, sign = '', integer = '', fraction = '', exponent] = match;
  if (exponent === undefined) {
    if (integer.length > INTEGER_DIGITS || fraction.length > LIMITS.decimals) return OUT_OF_RANGE;
    if (fraction === '' && integer === '0') return { kind: 'long', value: 0 };
    return VERBATIM;
  }
  const digits = (integer + fraction).replace(/^0+/, '');
  if (digits === '') return { kind: 'long', value: 0 };
  const shift = Number(exponent) - fraction.length;
  if (!Number.isSafeInteger(shift) || digits.length + shift > INTEGER_DIGITS || shift < -10_000) return OUT_OF_RANGE;
  if (shift >= 0) return { kind: 'literal', text: `${sign}${digits}${'0'.repeat(shift)}` };
  // Trailing zeros that only the exponent brought are no digits of the value.
  let scale = -shift;
  let significant = digits;
  while (scale > LIMITS.decimals && significant.endsWith('0')) {
    significant = significant.slice(0, -1);
    scale--;
  }
  if (scale > LIMITS.decimals) return OUT_OF_RANGE;
  const padded = significant.padStart(scale + 1, '0');
  return { kind: 'literal', text: `${sign}${padded.slice(0, -scale)}.${padded.slice(-scale)}` };
}
