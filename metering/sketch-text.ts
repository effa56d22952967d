/**
 * Bins and counts as a short text. Bins that follow each other are a run: how far it begins behind the end of the run
 * before (the first one: its bin, the sign in the lowest bit), its length, and a count for each bin. Numbers are digits of
 * printable ASCII: up to 60 stands for itself, more goes on in base 31. So most bins are one character,
 * where PostgreSQL's arrays take 20 bytes and a function call for each element.
 */
const FIRST = 35;
const SINGLE = 61;
const BASE = 31;
/** A hole of so many bins is cheaper as counts of 0 than as a run of its own. */
const HOLE = 2;

/** @param length how many entries of both are meant @param bins ascending @param counts positive safe integers */
export function sketchToText(bins: ArrayLike<number>, counts: ArrayLike<number>, length: number): string {
  let text = '';
  let end = 0;
  for (let i = 0; i < length; ) {
    const start = bins[i] as number;
    let j = i + 1;
    while (j < length && (bins[j] as number) - (bins[j - 1] as number) <= HOLE + 1) j++;
    const runEnd = (bins[j - 1] as number) + 1;
    text += i === 0 ? quantity(start < 0 ? -start * 2 + 1 : start * 2) : quantity(start - end);
    text += quantity(runEnd - start);
    for (let bin = start; bin < runEnd; bin++) text += quantity(bins[i] === bin ? (counts[i++] as number) : 0);
    end = runEnd;
  }
  return text;
}

function quantity(value: number): string {
  let text = '';
  let rest = value;
  while (rest >= SINGLE) {
    const high = Math.floor((rest - SINGLE) / BASE);
    text += String.fromCharCode(FIRST + SINGLE + ((rest - SINGLE) % BASE));
    rest = high;
  }
  return text + String.fromCharCode(FIRST + rest);
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

  /** Adds what `sketchToText` wrote. */
  addText(text: string): void {
    const counts = this.#counts;
    const end = text.length;
    let total = 0;
    let at = 0;
    for (let i = 0, first = true; i < end; first = false) {
      let digit = text.charCodeAt(i++) - FIRST;
      let value = digit;
      // A number goes on while its digits are not below SINGLE.
      for (let weight = BASE; digit >= SINGLE; weight *= BASE) {
        digit = text.charCodeAt(i++) - FIRST;
        value += digit * weight;
      }
      if (first) {
        at = MOST_BIN + (value % 2 === 1 ? -(value - 1) / 2 : value / 2);
        if (at < this.#low) this.#low = at;
      } else at += value;
      digit = text.charCodeAt(i++) - FIRST;
      let run = digit;
      for (let weight = BASE; digit >= SINGLE; weight *= BASE) {
        digit = text.charCodeAt(i++) - FIRST;
        run += digit * weight;
      }
      for (const stop = at + run; at < stop; at++) {
        digit = text.charCodeAt(i++) - FIRST;
        let count = digit;
        for (let weight = BASE; digit >= SINGLE; weight *= BASE) {
          digit = text.charCodeAt(i++) - FIRST;
          count += digit * weight;
        }
        counts[at] = (counts[at] as number) + count;
        total += count;
      }
    }
    if (total > 0 && at - 1 > this.#high) this.#high = at - 1;
    this.#total += total;
  }

  /** Bins with what they hold, ascending. */
  *entries(): Generator<[bin: number, count: number]> {
    for (let at = this.#low; at <= this.#high; at++) {
      const count = this.#counts[at] as number;
      if (count !== 0) yield [at - MOST_BIN, count];
    }
  }

  /** What they add up to, as `sketchToText` writes it. */
  toText(): string {
    const entries = [...this.entries()];
    return sketchToText(
      entries.map(([bin]) => bin),
      entries.map(([, count]) => count),
      entries.length,
    );
  }

  clear(): void {
    if (this.#low <= this.#high) this.#counts.fill(0, this.#low, this.#high + 1);
    this.#low = MOST_BIN * 2;
    this.#high = 0;
    this.#total = 0;
  }

  /**
   * The bins at ranks floor(q · (n - 1)), as metering/sketch.ts defines them; that of 0 when there is none.
   * @param qs ascending
   */
  quantileBins(qs: readonly number[]): number[] {
    const found: number[] = [];
    let upto = 0;
    let at = this.#low - 1;
    for (const q of qs) {
      const rank = Math.floor(q * (this.#total - 1));
      while (upto <= rank && at < this.#high) upto += this.#counts[++at] as number;
      found.push(this.#total === 0 ? 0 : at - MOST_BIN);
    }
    return found;
  }
}
