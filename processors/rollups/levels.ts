import { compareDecimals, type Decimal, ExactSum } from '../../metering/index.ts';

/**
 * What happened to a level within a bucket: ascending milliseconds since its start, and the net change (delta) or the
 * highest report (gauge) of each. Neither depends on the order of events.
 */
export class Levels {
  length = 0;
  offsets = new Int32Array(8);
  readonly values: ExactSum[] = [];

  addChange(offset: number, change: Decimal | ExactSum): void {
    this.#at(offset).add(change);
  }

  addReport(offset: number, level: Decimal | ExactSum): void {
    const before = this.length;
    const known = this.#at(offset);
    if (this.length > before || compareDecimals(level, known) > 0) known.set(level);
  }

  #at(offset: number): ExactSum {
    const { offsets } = this;
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((offsets[middle] as number) < offset) low = middle + 1;
      else high = middle;
    }
    const known = low < this.length && offsets[low] === offset ? this.values[low] : undefined;
    if (known !== undefined) return known;
    if (this.length === offsets.length) {
      const grown = new Int32Array(this.length * 2);
      grown.set(offsets);
      this.offsets = grown;
    }
    this.offsets.copyWithin(low + 1, low, this.length);
    this.offsets[low] = offset;
    const value = new ExactSum();
    this.values.splice(low, 0, value);
    this.length++;
    return value;
  }
}
