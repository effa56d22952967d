/** The order of an answer's rows, where the database can't bring them into it, and pages of them. */
import { compareDecimals, decimalFrom } from '../../metering/index.ts';
import type { MeterRow, RowPlace } from './meter-query.ts';

/** Rows after the given one, by window, subject and groups; no more than `limit`. */
export async function* limited(
  rows: AsyncIterable<MeterRow[]>,
  after: RowPlace | undefined,
  limit = Number.POSITIVE_INFINITY,
): AsyncGenerator<MeterRow[]> {
  let left = limit;
  for await (const chunk of rows) {
    const coming = after === undefined ? chunk : chunk.filter((row) => comparePlaces(row, after) > 0);
    if (coming.length >= left) {
      yield coming.slice(0, left);
      return;
    }
    left -= coming.length;
    if (coming.length > 0) yield coming;
  }
}

/** The `most` highest or lowest rows, those that come after the given one. Holds twice as many. */
export async function extremes(
  rows: AsyncIterable<MeterRow[]>,
  order: 'asc' | 'desc',
  after: RowPlace | undefined,
  most: number,
): Promise<MeterRow[]> {
  const sign = order === 'asc' ? 1 : -1;
  const compare = (a: Valued, b: Valued) => sign * compareValues(allDigits(a), allDigits(b)) || comparePlaces(a, b);
  let best: MeterRow[] = [];
  for await (const chunk of rows) {
    for (const row of chunk) if (after === undefined || compare(row, after) > 0) best.push(row);
    if (best.length > 2 * most) best = best.sort(compare).slice(0, most);
  }
  return best.sort(compare).slice(0, most);
}

type Valued = RowPlace & { exact?: string };
/** A place has all digits of its value, a row may show fewer. */
const allDigits = ({ exact, value }: Valued): string => exact ?? value ?? '0';

/** Decimal literals; doubles tell most of them apart. */
const compareValues = (a: string, b: string): number =>
  a === b ? 0 : Number(a) - Number(b) || compareDecimals(decimalFrom(a), decimalFrom(b));

function comparePlaces(a: RowPlace, b: RowPlace): number {
  if (a.windowStart !== b.windowStart) return a.windowStart - b.windowStart;
  for (let i = 0; i < a.key.length; i++) {
    const order = compareTexts(a.key[i] ?? null, b.key[i] ?? null);
    if (order !== 0) return order;
  }
  return 0;
}

/** The database's order: bytes of UTF-8, nulls first. */
function compareTexts(a: string | null, b: string | null): number {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
