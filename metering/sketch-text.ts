import { valueOfBin } from './sketch.ts';

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

/** No number that an event may hold has a bin outside ± this (|x| < 1e20, see metering/sketch.ts). */
const MOST_BIN = 8_192;

/** Sketches added up: a dense array, because those of one meter overlap. */
export class SketchSums {
  readonly #counts = new Float64Array(MOST_BIN * 2 + 1);
  #low = MOST_BIN * 2;
  #high = 0;
  #total = 0;

  add(bin: number, count: number): void {
    const at = bin + MOST_BIN;
    if (at < this.#low) this.#low = at;
    if (at > this.#high) this.#high = at;
    this.#counts[at] = (this.#counts[at] as number) + count;
    this.#total += count;
  }

  /** Adds what `sketchToText` wrote; the same as `readSketchText`, without a call for each bin. */
  addText(text: string): void {
    const counts = this.#counts;
    const end = text.length;
    let at = MOST_BIN;
    let total = 0;
    for (let i = 0, first = true; i < end; first = false) {
      let digit = VALUES[text.charCodeAt(i++)] as number;
      let value = digit & 31;
      for (let weight = 32; digit >= 32; weight *= 32) {
        digit = VALUES[text.charCodeAt(i++)] as number;
        value += (digit & 31) * weight;
      }
      at += value % 2 === 1 ? -(value - 1) / 2 : value / 2;
      if (first && at < this.#low) this.#low = at;
      digit = VALUES[text.charCodeAt(i++)] as number;
      value = digit & 31;
      for (let weight = 32; digit >= 32; weight *= 32) {
        digit = VALUES[text.charCodeAt(i++)] as number;
        value += (digit & 31) * weight;
      }
      // Values are counted, never taken back: no sign.
      const count = value / 2;
      counts[at] = (counts[at] as number) + count;
      total += count;
    }
    if (total > 0 && at > this.#high) this.#high = at;
    this.#total += total;
  }

  clear(): void {
    if (this.#low <= this.#high) this.#counts.fill(0, this.#low, this.#high + 1);
    this.#low = MOST_BIN * 2;
    this.#high = 0;
    this.#total = 0;
  }

  /** The value at rank floor(q · (n - 1)), as metering/sketch.ts defines it; 0 when there is none. */
  quantile(q: number): number {
    const rank = Math.floor(q * (this.#total - 1));
    let upto = 0;
    for (let at = this.#low; at <= this.#high; at++) {
      upto += this.#counts[at] as number;
      if (upto > rank) return valueOfBin(at - MOST_BIN);
    }
    return 0;
  }
}
