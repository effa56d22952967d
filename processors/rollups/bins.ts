/** Counts by integer bin, ascending: a sketch's bins, or a gauge's steps. Small and dense in memory. */
export class Bins {
  length = 0;
  keys = new Int32Array(8);
  counts = new Float64Array(8);

  /** Adds `count` (may be negative for steps) to a bin. */
  add(bin: number, count: number): void {
    const { keys } = this;
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((keys[middle] as number) < bin) low = middle + 1;
      else high = middle;
    }
    if (low < this.length && keys[low] === bin) {
      this.counts[low] = (this.counts[low] as number) + count;
      return;
    }
    this.#insert(low, bin, count);
  }

  #insert(at: number, bin: number, count: number): void {
    if (this.length === this.keys.length) {
      const keys = new Int32Array(this.length * 2);
      const counts = new Float64Array(this.length * 2);
      keys.set(this.keys);
      counts.set(this.counts);
      this.keys = keys;
      this.counts = counts;
    }
    this.keys.copyWithin(at + 1, at, this.length);
    this.counts.copyWithin(at + 1, at, this.length);
    this.keys[at] = bin;
    this.counts[at] = count;
    this.length++;
  }
}
