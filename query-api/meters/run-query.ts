import type { Pool } from 'pg';
import { isWholeMinute, SketchSums, splitHours, valueOfBin, windowBoundaries } from '../../metering/index.ts';
import { type Meter, TidemarkError } from '../../schemas/index.ts';
import { plainNumber, significant } from './decimals.ts';
import { fillWindows } from './fill.ts';
import { mergeRows } from './merge.ts';
import type { MeterQuery, MeterRow } from './meter-query.ts';
import { extremes, limited } from './order.ts';
import { type Piece, type PlanRequest, planPieces } from './plan.ts';
import { rangeOf, requireMinutes } from './range.ts';
import { openSnapshot, type Snapshot, type TextRow } from './snapshot.ts';
import { ordersByValue, type RowsRequest, rowsStatement } from './statements.ts';

interface Answer {
  from: number | undefined;
  to: number | undefined;
  /** what is read */
  pieces: readonly Piece[];
  rows: AsyncGenerator<MeterRow[]>;
}

/** An answer on its way: its rows come in chunks, all from one snapshot. */
export interface MeterAnswer extends Answer {
  /** Ends the snapshot; the rows do so at their end. */
  close(): Promise<void>;
}

const MOST_WINDOWS = 100_000;
/** Rows that have to be in memory together: the highest values of a meter that is merged here. */
const MOST_BY_VALUE = 10_000;
const HOUR = 3_600_000;

/**
 * Answers a meter query from rollups, all of it in one snapshot. The caller reads the rows to their end, or closes.
 * @throws TidemarkError `invalid_range` | `window_too_fine`
 */
export async function openMeterQuery(pool: Pool, query: MeterQuery): Promise<MeterAnswer> {
  const snapshot = await openSnapshot(pool);
  try {
    const answer = await answerFrom(snapshot, query);
    return { ...answer, rows: closing(snapshot, answer.rows), close: () => snapshot.close() };
  } catch (error) {
    await snapshot.close();
    throw error;
  }
}

/** All rows of a question to a snapshot that stays open, for pages that ask several. */
export async function rowsIn(snapshot: Snapshot, query: MeterQuery): Promise<MeterRow[]> {
  const { rows } = await answerFrom(snapshot, query);
  return all(rows);
}

/** The whole answer at once, for those that need few rows. */
export async function runMeterQuery(
  pool: Pool,
  query: MeterQuery,
): Promise<{ from: number | undefined; to: number | undefined; rows: MeterRow[] }> {
  const answer = await openMeterQuery(pool, query);
  return { from: answer.from, to: answer.to, rows: await all(answer.rows) };
}

async function all(chunks: AsyncIterable<MeterRow[]>): Promise<MeterRow[]> {
  const rows: MeterRow[] = [];
  for await (const chunk of chunks) for (const row of chunk) rows.push(row);
  return rows;
}

async function* noRows(): AsyncGenerator<MeterRow[]> {}

async function* closing(snapshot: Snapshot, rows: AsyncIterable<MeterRow[]>): AsyncGenerator<MeterRow[]> {
  try {
    yield* rows;
  } finally {
    await snapshot.close();
  }
}

async function answerFrom(snapshot: Snapshot, query: MeterQuery): Promise<Answer> {
  const range = await rangeOf(snapshot, query);
  if (range === undefined) return { from: query.from, to: query.to, pieces: [], rows: noRows() };
  const { from, to } = range;
  if (from >= to) throw new TidemarkError('invalid_range', '`from` must be before `to`');
  if (!isWholeMinute(from) || !isWholeMinute(to))
    throw new TidemarkError('invalid_range', '`from` and `to` must be whole minutes');
  const windows = windowBoundaries(from, to, query.windowSize, query.windowTimeZone, MOST_WINDOWS);
  if (windows === undefined)
    throw new TidemarkError('invalid_range', `more than ${MOST_WINDOWS} windows: take a larger windowSize`);
  const boundaries = query.byValue === undefined ? windowsFrom(windows, query) : windows;
  const pieces = planPieces(planRequest(query, boundaries), snapshot);
  await requireMinutes(snapshot, query, pieces);
  const found = new Found(snapshot, await narrowed(snapshot, query, [from, to]), boundaries, pieces);
  return { from, to, pieces, rows: query.fillEmpty ? found.filled([from, to]) : found.rows() };
}

/** A page goes on in the window where the last one ended. */
function windowsFrom(windows: readonly number[], { after }: MeterQuery): readonly number[] {
  if (after === undefined) return windows;
  return windows.slice(
    Math.max(
      0,
      windows.findLastIndex((at) => at <= after.windowStart),
    ),
  );
}

/** A query of which only some groups are wanted. */
type NarrowedQuery = MeterQuery & { only?: { keys: ReadonlySet<string>; subjects: readonly string[] | undefined } };

/** Only the groups whose values over the whole range are the `top` highest. */
async function narrowed(snapshot: Snapshot, query: MeterQuery, range: readonly number[]): Promise<NarrowedQuery> {
  const { top, windowSize, byValue, limit, after } = query;
  if (top === undefined) return query;
  // Without windows, in that order, they are the first rows.
  if (windowSize === undefined && byValue === 'desc' && after === undefined)
    return { ...query, limit: Math.min(top, limit ?? top) };
  const whole: MeterQuery = { ...withoutWindows(query), byValue: 'desc', limit: top };
  const keys = (await all(wholeRange(snapshot, whole, range).rows())).map((row) => row.key);
  return {
    ...query,
    only: {
      keys: new Set(keys.map((key) => JSON.stringify(key))),
      subjects: query.bySubject ? keys.map((key) => key[0] ?? '') : undefined,
    },
  };
}

const withoutWindows = <Q extends MeterQuery>(query: Q): Q => ({
  ...query,
  windowSize: undefined,
  fillEmpty: false,
  byValue: undefined,
  limit: undefined,
  after: undefined,
});

const wholeRange = (snapshot: Snapshot, query: NarrowedQuery, range: readonly number[]): Found =>
  new Found(snapshot, query, range, planPieces(planRequest(query, range), snapshot));

function planRequest(query: MeterQuery, boundaries: readonly number[]): PlanRequest {
  const from = boundaries[0] ?? 0;
  const to = boundaries.at(-1) ?? from;
  return {
    meter: query.meter,
    from,
    to,
    boundaries: query.windowSize === 'MINUTE' ? [] : boundaries,
    minutesOnly: areMinutesOnly(query, boundaries),
    withoutDays: query.windowSize === 'HOUR',
    byTenant: query.bySubject || query.tenantIds !== null,
    byGroup: query.groupBy.length > 0 || query.filters.size > 0,
  };
}

/** Whether a boundary cuts every hour. */
function areMinutesOnly({ windowSize }: MeterQuery, boundaries: readonly number[]): boolean {
  const length = (boundaries.at(-1) ?? 0) - (boundaries[0] ?? 0);
  return windowSize === 'MINUTE' || splitHours(boundaries).length >= Math.ceil(length / HOUR);
}

/** The rows of one planned question. */
class Found {
  readonly #snapshot: Snapshot;
  readonly #query: NarrowedQuery;
  readonly #boundaries: readonly number[];
  readonly #pieces: readonly Piece[];

  constructor(snapshot: Snapshot, query: NarrowedQuery, boundaries: readonly number[], pieces: readonly Piece[]) {
    this.#snapshot = snapshot;
    this.#query = query;
    this.#boundaries = boundaries;
    this.#pieces = pieces;
  }

  /** Rows that have data, in the answer's order, one page of them. */
  async *rows(): AsyncGenerator<MeterRow[]> {
    const { meter, byValue, after, limit } = this.#query;
    if (ordersByValue(meter.aggregation)) yield* limited(this.#wanted(true), undefined, limit);
    else if (byValue === undefined) yield* limited(this.#wanted(false), after, limit);
    else yield await extremes(this.#wanted(false), byValue, after, limit ?? MOST_BY_VALUE);
  }

  /** Every group that appears in the range, whatever page this is, gets every window. */
  async *filled(range: readonly number[]): AsyncGenerator<MeterRow[]> {
    const { bySubject, groupBy, after, limit } = this.#query;
    // Which groups there are: the same question without windows.
    const whole = wholeRange(this.#snapshot, withoutWindows(this.#query), range);
    const groups = (await all(whole.rows())).map((row) => row.key);
    if (groups.length === 0 && !bySubject && groupBy.length === 0) groups.push([]);
    yield* limited(fillWindows(groups, this.#wanted(false), this.#boundaries), after, limit);
  }

  /** Rows with data of the wanted groups. @param paged only those of the page, where the database can tell */
  async *#wanted(paged: boolean): AsyncGenerator<MeterRow[]> {
    const { only } = this.#query;
    for await (const rows of this.#counted(paged))
      yield only === undefined ? rows : rows.filter((row) => only.keys.has(JSON.stringify(row.key)));
  }

  #counted(paged: boolean): AsyncGenerator<MeterRow[]> {
    if (this.#pieces.length === 0) return noRows();
    const { meter, bySubject, groupBy, quantile } = this.#query;
    const width = 1 + (bySubject ? 1 : 0) + groupBy.length;
    const place = (row: TextRow) => {
      const w = Number(row[0]);
      return {
        windowStart: this.#boundaries[w - 1] ?? 0,
        windowEnd: this.#boundaries[w] ?? 0,
        key: row.slice(1, width),
      };
    };
    const chunks = this.#snapshot.chunks(rowsStatement(this.#request(paged), this.#pieces));
    if (meter.aggregation === 'PERCENTILE') return percentiles(chunks, width, quantile, place);
    return asAdded(chunks, width, isAverage(meter), place);
  }

  #request(paged: boolean): RowsRequest {
    const { windowSize, byValue, limit, after, only, fillEmpty, ...query } = this.#query;
    return {
      ...query,
      boundaries: this.#boundaries,
      splitHours: windowSize === 'MINUTE' ? [] : splitHours(this.#boundaries),
      minutesOnly: areMinutesOnly(this.#query, this.#boundaries),
      byValue: paged ? byValue : undefined,
      limit: paged && only === undefined ? limit : undefined,
      after: paged ? this.#after() : undefined,
      subjects: only?.subjects,
    };
  }

  #after(): RowsRequest['after'] {
    const { after } = this.#query;
    if (after === undefined) return undefined;
    const w = this.#boundaries.findLastIndex((at) => at <= after.windowStart) + 1;
    return { w, key: after.key, value: after.value };
  }
}

const isAverage = ({ aggregation }: Meter) => aggregation === 'AVG' || aggregation === 'TIME_WEIGHTED_AVG';

type PlaceOf = (row: TextRow) => Omit<MeterRow, 'value'>;

async function* asAdded(
  chunks: AsyncIterable<TextRow[]>,
  width: number,
  average: boolean,
  place: PlaceOf,
): AsyncGenerator<MeterRow[]> {
  for await (const rows of chunks)
    yield rows.map((row) => {
      const value = row[width] ?? '0';
      const { windowStart, windowEnd, key } = place(row);
      return average
        ? { windowStart, windowEnd, key, value: significant(value, 20), exact: value }
        : { windowStart, windowEnd, key, value };
    });
}

function percentiles(chunks: AsyncIterable<TextRow[]>, width: number, q: number, place: PlaceOf) {
  const sums = new SketchSums();
  return mergeRows(chunks, width, sums, (row): MeterRow => {
    const [p50 = 0, p95 = 0, p99 = 0] = sums.quantileBins([0.5, 0.95, 0.99]).map(roundedOfBin);
    const value = q === 0.95 ? p95 : roundedOfBin(sums.quantileBins([q])[0] ?? 0);
    const { windowStart, windowEnd, key } = place(row);
    return { windowStart, windowEnd, key, value: plainNumber(value), quantiles: { p50, p95, p99 } };
  });
}

/** By bin: there are some thousand at most, and an answer has few of them, many times. */
const ROUNDED = new Map<number, number>();

/** A sketch's value is good to 1 %: six digits say more than it knows. */
function roundedOfBin(bin: number): number {
  let value = ROUNDED.get(bin);
  if (value === undefined) {
    value = Number(valueOfBin(bin).toPrecision(6));
    ROUNDED.set(bin, value);
  }
  return value;
}
