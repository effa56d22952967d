/**
 * Bins and counts as a short text: each pair is the distance to the bin before and the count, both as base-64 variable
 * length quantities (five bits a character and one that says "more", as in source maps; the sign in the lowest bit).
 * Two or three characters a bin, where PostgreSQL's arrays take 20 bytes and a function call for each element.
 */
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const VALUES = new Uint8Array(128);
for (let i = 0; i < DIGITS.length; i++) VALUES[DIGITS.charCodeAt(i)] = i;

/** @param length how many entries of both are meant @param bins ascending @param counts safe integers below 2^51, may be negative */
export function sketchToText(bins: ArrayLike<number>, counts: ArrayLike<number>, length: number): string {
  let text = '';
  let before = 0;
  for (let i = 0; i < length; i++) {
    const bin = bins[i] as number;
    text += quantity(bin - before) + quantity(counts[i] as number);
    before = bin;
  }
  return text;
}

function quantity(value: number): string {
  let rest = value < 0 ? -value * 2 + 1 : value * 2;
  let text = '';
  while (rest >= 32) {
    text += DIGITS[(rest % 32) + 32];
    rest = Math.floor(rest / 32);
  }
  return text + DIGITS[rest];
}

/** Calls `add` with every bin and count of a text that `sketchToText` made. */
export function readSketchText(text: string, add: (bin: number, count: number) => void): void {
  let bin = 0;
  let distance = 0;
  let isCount = false;
  let value = 0;
  let weight = 1;
  for (let i = 0; i < text.length; i++) {
    const digit = VALUES[text.charCodeAt(i)] as number;
    value += (digit & 31) * weight;
    if (digit >= 32) {
      weight *= 32;
      continue;
    }
    const signed = value % 2 === 1 ? -(value - 1) / 2 : value / 2;
    if (isCount) {
      bin += distance;
      add(bin, signed);
    } else distance = signed;
    isCount = !isCount;
    value = 0;
    weight = 1;
  }
}
