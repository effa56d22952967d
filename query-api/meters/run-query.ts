import type { Pool } from 'pg';
import { isWholeMinute, quantile, splitHours, type WindowSize, windowBoundaries } from '../../metering/index.ts';
import { type Meter, TidemarkError } from '../../schemas/index.ts';
import { extentStatement, rollupStatement } from './query-sql.ts';

/** A checked meter query. Times are Unix ms. */
export interface MeterQuery {
  meter: Meter;
  tenantIds: readonly string[] | null;
  from: number | undefined;
  to: number | undefined;
  windowSize: WindowSize | undefined;
  windowTimeZone: string;
  bySubject: boolean;
  groupBy: readonly string[];
  filters: ReadonlyMap<string, readonly string[]>;
  /** of a PERCENTILE meter */
  quantile: number;
  /** windows without data are zero instead of absent (counts and sums) */
  fillEmpty: boolean;
}

/** One row of the answer. `value` is a decimal literal. */
export interface MeterRow {
  windowStart: number;
  windowEnd: number;
  subject: string | null;
  groupBy: Record<string, string | null>;
  value: string;
  quantiles?: { p50: number; p95: number; p99: number };
}

export interface MeterResult {
  from: number | undefined;
  to: number | undefined;
  rows: MeterRow[];
}

const MOST_WINDOWS = 100_000;
const MINUTE = 60_000;
const HOUR = 3_600_000;

interface Cell {
  w: number;
  subject?: string;
  value?: string | null;
  bins?: number[];
  counts?: number[];
  [group: `g${number}`]: string | null;
}

/** Answers a meter query from rollups. @throws TidemarkError `invalid_range` */
export async function runMeterQuery(pool: Pool, query: MeterQuery): Promise<MeterResult> {
  const range = await rangeOf(pool, query);
  if (range === undefined) return { from: query.from, to: query.to, rows: [] };
  const { from, to } = range;
  if (from >= to) throw new TidemarkError('invalid_range', '`from` must be before `to`');
  if (!isWholeMinute(from) || !isWholeMinute(to))
    throw new TidemarkError('invalid_range', '`from` and `to` must be whole minutes');
  const boundaries = windowBoundaries(from, to, query.windowSize, query.windowTimeZone, MOST_WINDOWS);
  if (boundaries === undefined)
    throw new TidemarkError('invalid_range', `more than ${MOST_WINDOWS} windows: take a larger windowSize`);
  const split = splitHours(boundaries);
  const hoursInRange = Math.ceil((to - from) / HOUR);
  const { text, values } = rollupStatement({
    ...query,
    boundaries,
    splitHours: query.windowSize === 'MINUTE' ? [] : split,
    minutesOnly: query.windowSize === 'MINUTE' || split.length >= hoursInRange,
  });
  const { rows: cells } = await pool.query<Cell>(text, values);
  const rows = cells.map((cell) => toRow(cell, query, boundaries));
  return { from, to, rows: query.fillEmpty ? filled(rows, query, boundaries) : rows };
}

async function rangeOf(pool: Pool, query: MeterQuery): Promise<{ from: number; to: number } | undefined> {
  if (query.from !== undefined && query.to !== undefined) return { from: query.from, to: query.to };
  const { text, values } = extentStatement(query.meter, query.tenantIds);
  const { rows } = await pool.query<{ first: number | null; last: number | null }>(text, values);
  const extent = rows[0];
  if (extent === undefined || extent.first === null || extent.last === null) return undefined;
  const from = query.from ?? extent.first;
  const to = query.to ?? extent.last + MINUTE;
  // An open end before the given start: there is nothing, which is no error.
  if (from >= to && (query.from === undefined || query.to === undefined)) return undefined;
  return { from, to };
}

function placeOf(cell: Cell, query: MeterQuery, boundaries: readonly number[], w: number) {
  return {
    windowStart: boundaries[w - 1] ?? 0,
    windowEnd: boundaries[w] ?? 0,
    subject: cell.subject ?? null,
    groupBy: Object.fromEntries(query.groupBy.map((name, i) => [name, cell[`g${i}`] ?? null])),
  };
}

function toRow(cell: Cell, query: MeterQuery, boundaries: readonly number[]): MeterRow {
  const place = placeOf(cell, query, boundaries, cell.w);
  if (query.meter.aggregation === 'PERCENTILE') {
    const at = (q: number) => quantile(cell.bins ?? [], cell.counts ?? [], q) ?? 0;
    return {
      ...place,
      value: plain(at(query.quantile)),
      quantiles: { p50: rounded(at(0.5)), p95: rounded(at(0.95)), p99: rounded(at(0.99)) },
    };
  }
  const value = cell.value ?? '0';
  return { ...place, value: isAverage(query.meter) ? significant(value, 20) : value };
}

const isAverage = ({ aggregation }: Meter) => aggregation === 'AVG' || aggregation === 'TIME_WEIGHTED_AVG';

/** A sketch's value is good to 1 %: six digits say more than it knows. */
const rounded = (value: number): number => Number(value.toPrecision(6));
const plain = (value: number): string => String(rounded(value));

/** Every group that appears at all gets every window. */
function filled(rows: readonly MeterRow[], query: MeterQuery, boundaries: readonly number[]): MeterRow[] {
  const keyOf = (row: MeterRow) => JSON.stringify([row.subject, query.groupBy.map((name) => row.groupBy[name])]);
  const groups = Map.groupBy(rows, keyOf);
  if (groups.size === 0 && !query.bySubject && query.groupBy.length === 0) groups.set('', []);
  const out: MeterRow[] = [];
  for (let w = 1; w < boundaries.length; w++) {
    const windowStart = boundaries[w - 1] ?? 0;
    for (const [, own] of groups) {
      const known = own.find((row) => row.windowStart === windowStart);
      const like = own[0];
      out.push(
        known ?? {
          windowStart,
          windowEnd: boundaries[w] ?? 0,
          subject: like?.subject ?? null,
          groupBy: like?.groupBy ?? {},
          value: '0',
        },
      );
    }
  }
  return out;
}

/** A decimal literal cut to so many significant digits, half up. */
export function significant(literal: string, digits: number): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(literal);
  if (match === null) return literal;
  const [, sign = '', integer = '', fraction = ''] = match;
  const all = `${integer}${fraction}`;
  const first = all.search(/[1-9]/);
  if (first < 0) return '0';
  const cut = first + digits;
  if (cut >= all.length) return trim(sign, all, fraction.length);
  const kept = BigInt(all.slice(0, cut)) + ((all[cut] ?? '0') >= '5' ? 1n : 0n);
  const dropped = all.length - cut;
  const scale = fraction.length - dropped;
  if (scale < 0) return `${sign}${kept}${'0'.repeat(-scale)}`;
  return trim(sign, kept.toString(), scale);
}

function trim(sign: string, digits: string, scale: number): string {
  const padded = digits.padStart(scale + 1, '0');
  const integer = scale === 0 ? padded : padded.slice(0, -scale);
  const fraction = scale === 0 ? '' : padded.slice(-scale).replace(/0+$/, '');
  return `${sign}${integer.replace(/^0+(?=\d)/, '')}${fraction === '' ? '' : `.${fraction}`}`;
}
