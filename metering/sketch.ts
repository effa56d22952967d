/**
 * DDSketch of 1 % relative error (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with
 * relative-error guarantees", VLDB 2019). γ is fixed, so any two sketches merge by adding counts, in SQL too
 * (`schemas/sql/0010_sketch_functions.sql`).
 *
 * A bin is one integer, ascending with the value: 0 is zero, b > 0 holds (γ^(b-OFFSET-1), γ^(b-OFFSET)],
 * -b the negatives of these. Values nearer to zero than γ^-OFFSET (about 2.6e-36) count as zero.
 */
export const RELATIVE_ACCURACY = 0.01;
export const GAMMA = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY);
export const OFFSET = 4096;
const PER_LOG = 1 / Math.log(GAMMA);

/** The bin of a finite value. */
export function binOf(value: number): number {
  if (value > 0) {
    const bin = Math.ceil(Math.log(value) * PER_LOG) + OFFSET;
    return Math.max(bin, 0);
  }
  if (value < 0) return -binOf(-value) + 0;
  return 0;
}

/** The value that stands for a bin: within 1 % of everything in it. */
export function valueOfBin(bin: number): number {
  if (bin === 0) return 0;
  return (Math.sign(bin) * 2 * GAMMA ** (Math.abs(bin) - OFFSET)) / (1 + GAMMA);
}

/**
 * The q-quantile of a sketch: the value at rank floor(q · (n - 1)), to 1 %.
 * @param bins ascending bins
 * @param counts how many values each bin holds, same length
 * @returns undefined when the sketch is empty
 */
export function quantile(bins: ArrayLike<number>, counts: ArrayLike<number>, q: number): number | undefined {
  let total = 0;
  for (let i = 0; i < counts.length; i++) total += counts[i] ?? 0;
  if (total === 0) return undefined;
  const rank = Math.floor(q * (total - 1));
  let upto = 0;
  for (let i = 0; i < bins.length; i++) {
    upto += counts[i] ?? 0;
    if (upto > rank) return valueOfBin(bins[i] ?? 0);
  }
  return undefined;
}
