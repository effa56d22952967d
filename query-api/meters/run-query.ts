import type { Pool } from 'pg';
import { isWholeMinute, SketchSums, splitHours, type WindowSize, windowBoundaries } from '../../metering/index.ts';
import { type Meter, TidemarkError } from '../../schemas/index.ts';
import { significant } from './decimals.ts';
import { mergeRows } from './merge.ts';
import { type Piece, type PlanRequest, planPieces } from './plan.ts';
import { openSnapshot, type Snapshot, type TextRow } from './snapshot.ts';
import { extentStatement, ordersByValue, type RowsRequest, rowsStatement } from './statements.ts';

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
  /** windows without data are zero instead of absent, for every group that appears in the range */
  fillEmpty: boolean;
  /** highest or lowest values first; otherwise by window, subject and groups */
  byValue?: 'asc' | 'desc' | undefined;
  /** at most so many rows */
  limit?: number | undefined;
  /** only the groups with the so many highest values over the whole range */
  top?: number | undefined;
  /** rows that come after this one */
  after?: { windowStart: number; key: readonly (string | null)[] } | undefined;
}

/** One row of the answer. `value` is a decimal literal. */
export interface MeterRow {
  windowStart: number;
  windowEnd: number;
  /** subject, where asked for, then the groups in their order */
  key: readonly (string | null)[];
  value: string;
  quantiles?: { p50: number; p95: number; p99: number };
}

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
const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;
/** Before any event (`processors/steps/apply.ts` refuses earlier ones). */
const EPOCH = 0;
const END = Date.UTC(2200, 0, 1);

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
  const all: MeterRow[] = [];
  for await (const chunk of rows) all.push(...chunk);
  return all;
}

/** The whole answer at once, for those that need few rows. */
export async function runMeterQuery(
  pool: Pool,
  query: MeterQuery,
): Promise<{ from: number | undefined; to: number | undefined; rows: MeterRow[] }> {
  const answer = await openMeterQuery(pool, query);
  const rows: MeterRow[] = [];
  for await (const chunk of answer.rows) rows.push(...chunk);
  return { from: answer.from, to: answer.to, rows };
}

async function answerFrom(snapshot: Snapshot, query: MeterQuery): Promise<Answer> {
  const range = await rangeOf(snapshot, query);
  if (range === undefined) return { from: query.from, to: query.to, pieces: [], rows: noRows() };
  const { from, to } = range;
  if (from >= to) throw new TidemarkError('invalid_range', '`from` must be before `to`');
  if (!isWholeMinute(from) || !isWholeMinute(to))
    throw new TidemarkError('invalid_range', '`from` and `to` must be whole minutes');
  const all = windowBoundaries(from, to, query.windowSize, query.windowTimeZone, MOST_WINDOWS);
  if (all === undefined)
    throw new TidemarkError('invalid_range', `more than ${MOST_WINDOWS} windows: take a larger windowSize`);
  const { after, top } = query;
  // A page goes on in the window where the last one ended.
  const boundaries = after === undefined ? all : all.filter((at) => at >= after.windowStart);
  const pieces = planPieces(planRequest(query, boundaries), snapshot.shards);
  await requireMinutes(snapshot, query, pieces);
  const narrowed = top === undefined ? query : await narrowTo(snapshot, query, top, [from, to]);
  const rows = rowsOf(snapshot, narrowed, boundaries, pieces);
  return { from, to, pieces, rows };
}

/** Only the groups whose values over the whole range are the `top` highest. */
async function narrowTo(
  snapshot: Snapshot,
  query: MeterQuery,
  top: number,
  range: readonly number[],
): Promise<NarrowedQuery> {
  const whole: MeterQuery = {
    ...query,
    windowSize: undefined,
    fillEmpty: false,
    byValue: 'desc',
    limit: top,
    after: undefined,
  };
  const keys: (readonly (string | null)[])[] = [];
  for await (const rows of found(snapshot, whole, range, planPieces(planRequest(whole, range), snapshot.shards)))
    for (const row of rows) keys.push(row.key);
  return {
    ...query,
    only: {
      keys: new Set(keys.map((key) => JSON.stringify(key))),
      subjects: query.bySubject ? keys.map((key) => key[0] ?? '') : undefined,
    },
  };
}

/** A query of which only some rows are wanted. */
type NarrowedQuery = MeterQuery & { only?: { keys: ReadonlySet<string>; subjects: readonly string[] | undefined } };

async function* noRows(): AsyncGenerator<MeterRow[]> {}

async function* closing(snapshot: Snapshot, rows: AsyncIterable<MeterRow[]>): AsyncGenerator<MeterRow[]> {
  try {
    yield* rows;
  } finally {
    await snapshot.close();
  }
}

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

/** From the first minute that has data to the end of the last, where the query leaves an end open. */
async function rangeOf(snapshot: Snapshot, query: MeterQuery): Promise<{ from: number; to: number } | undefined> {
  if (query.from !== undefined && query.to !== undefined) return { from: query.from, to: query.to };
  const from = query.from ?? (await edgeOf(snapshot, query, 'first'));
  const to = query.to ?? (await edgeOf(snapshot, query, 'last'));
  // An open end before the given start: there is nothing, which is no error.
  return from === undefined || to === undefined || from >= to ? undefined : { from, to };
}

/** First the day, from the coarsest rows there are; then, within it, the minute (or the hour, where minutes are gone). */
async function edgeOf(snapshot: Snapshot, query: MeterQuery, edge: 'first' | 'last'): Promise<number | undefined> {
  const { meter, tenantIds } = query;
  const extent = async (pieces: readonly Piece[]): Promise<number | undefined> => {
    if (pieces.length === 0) return undefined;
    const [row] = await snapshot.all(extentStatement(meter, tenantIds, pieces));
    const found = row?.[edge === 'first' ? 0 : 1];
    return found === null || found === undefined ? undefined : Number(found);
  };
  const plan = { meter, boundaries: [], minutesOnly: false, withoutDays: false, byGroup: false };
  const coarse = await extent(
    planPieces({ ...plan, from: EPOCH, to: END, byTenant: tenantIds !== null }, snapshot.shards),
  );
  if (coarse === undefined) return undefined;
  const day = Math.floor(coarse / DAY) * DAY;
  const within = { from: day, to: day + DAY, shards: null };
  const minute = await extent([{ source: 'minutes', ...within }]);
  if (minute !== undefined) return edge === 'first' ? minute : minute + MINUTE;
  const hour = await extent([{ source: 'hours', ...within }]);
  return hour === undefined ? undefined : edge === 'first' ? hour : hour + HOUR;
}

/** Minutes may be gone where hours are kept: the first folded hour that is to be read by minutes must have them. */
async function requireMinutes(snapshot: Snapshot, query: MeterQuery, pieces: readonly Piece[]): Promise<void> {
  const folded = Math.max(Number.NEGATIVE_INFINITY, ...snapshot.shards.map((shard) => shard.foldedUntil));
  const stretches = pieces
    .filter((piece) => piece.source === 'minutes' && piece.from < folded)
    .map((piece) => ({
      ...piece,
      from: Math.floor(piece.from / HOUR) * HOUR,
      to: Math.min(Math.ceil(piece.to / HOUR) * HOUR, folded),
    }));
  const first = stretches[0];
  if (first === undefined) return;
  const { meter, tenantIds } = query;
  const firstOf = async (piece: Piece): Promise<number | undefined> => {
    const [row] = await snapshot.all(extentStatement(meter, tenantIds, [piece]));
    return row?.[0] === null || row?.[0] === undefined ? undefined : Number(row[0]);
  };
  const hour = await firstOf({ ...first, source: 'hours' });
  if (hour === undefined) return;
  const minute = await firstOf({ source: 'minutes', from: hour, to: hour + HOUR, shards: first.shards });
  if (minute === undefined)
    throw new TidemarkError(
      'window_too_fine',
      `minutes are not kept as far back as ${new Date(hour).toISOString()}: ask for whole hours`,
    );
}

async function* rowsOf(
  snapshot: Snapshot,
  query: NarrowedQuery,
  boundaries: readonly number[],
  pieces: readonly Piece[],
): AsyncGenerator<MeterRow[]> {
  if (query.fillEmpty) {
    yield* limited(filled(snapshot, query, boundaries, pieces), query);
    return;
  }
  yield* limited(found(snapshot, query, boundaries, pieces), query);
}

/** Rows that have data and are wanted, in the answer's order. */
async function* found(
  snapshot: Snapshot,
  query: NarrowedQuery,
  boundaries: readonly number[],
  pieces: readonly Piece[],
): AsyncGenerator<MeterRow[]> {
  const { only } = query;
  for await (const rows of counted(snapshot, query, boundaries, pieces))
    yield only === undefined ? rows : rows.filter((row) => only.keys.has(JSON.stringify(row.key)));
}

/** Rows that have data. */
async function* counted(
  snapshot: Snapshot,
  query: NarrowedQuery,
  boundaries: readonly number[],
  pieces: readonly Piece[],
): AsyncGenerator<MeterRow[]> {
  if (pieces.length === 0) return;
  const { meter, byValue, after, fillEmpty, only } = query;
  const split = splitHours(boundaries);
  const request: RowsRequest = {
    ...query,
    boundaries,
    splitHours: query.windowSize === 'MINUTE' ? [] : split,
    minutesOnly: areMinutesOnly(query, boundaries),
    limit: after === undefined && !fillEmpty && only === undefined ? query.limit : undefined,
    subjects: only?.subjects,
  };
  const width = 1 + (query.bySubject ? 1 : 0) + query.groupBy.length;
  const place = (row: TextRow) => {
    const w = Number(row[0]);
    return { windowStart: boundaries[w - 1] ?? 0, windowEnd: boundaries[w] ?? 0, key: row.slice(1, width) };
  };
  const chunks = snapshot.chunks(rowsStatement(request, pieces));
  const rows =
    meter.aggregation === 'PERCENTILE'
      ? percentiles(chunks, width, query.quantile, place)
      : asAdded(chunks, width, isAverage(meter) ? (value) => significant(value, 20) : (value) => value, place);
  if (byValue === undefined || ordersByValue(meter.aggregation)) yield* rows;
  else yield await extremes(rows, byValue, query.limit ?? MOST_BY_VALUE);
}

const isAverage = ({ aggregation }: Meter) => aggregation === 'AVG' || aggregation === 'TIME_WEIGHTED_AVG';

async function* asAdded(
  chunks: AsyncIterable<TextRow[]>,
  width: number,
  shown: (value: string) => string,
  place: PlaceOf,
): AsyncGenerator<MeterRow[]> {
  for await (const rows of chunks) yield rows.map((row) => ({ ...place(row), value: shown(row[width] ?? '0') }));
}

type PlaceOf = (row: TextRow) => Omit<MeterRow, 'value'>;

function percentiles(chunks: AsyncIterable<TextRow[]>, width: number, q: number, place: PlaceOf) {
  const sums = new SketchSums();
  return mergeRows(chunks, width, sums, (row): MeterRow => {
    const at = (quantile: number) => rounded(sums.quantile(quantile));
    const quantiles = { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
    return { ...place(row), value: plain(q === 0.95 ? quantiles.p95 : at(q)), quantiles };
  });
}

/** A sketch's value is good to 1 %: six digits say more than it knows. */
const rounded = (value: number): number => Number(value.toPrecision(6));

/** A double as a plain decimal literal. */
function plain(value: number): string {
  const text = String(value);
  return text.includes('e') ? value.toFixed(18).replace(/\.?0+$/, '') : text;
}

/** The `most` highest or lowest rows. */
async function extremes(rows: AsyncIterable<MeterRow[]>, order: 'asc' | 'desc', most: number): Promise<MeterRow[]> {
  const sign = order === 'asc' ? 1 : -1;
  let best: MeterRow[] = [];
  const cut = () => {
    best.sort((a, b) => sign * (Number(a.value) - Number(b.value)));
    best = best.slice(0, most);
  };
  for await (const chunk of rows) {
    best.push(...chunk);
    if (best.length > 2 * most) cut();
  }
  cut();
  return best;
}

/** Every group that appears at all gets every window. */
async function* filled(
  snapshot: Snapshot,
  query: NarrowedQuery,
  boundaries: readonly number[],
  pieces: readonly Piece[],
): AsyncGenerator<MeterRow[]> {
  const range = [boundaries[0] ?? 0, boundaries.at(-1) ?? 0];
  const groups: (readonly (string | null)[])[] = [];
  const whole = { ...query, windowSize: undefined, byValue: undefined, limit: undefined, after: undefined };
  // Which groups there are: the same question without windows.
  for await (const rows of found(snapshot, whole, range, planPieces(planRequest(whole, range), snapshot.shards)))
    for (const row of rows) if (query.only?.keys.has(JSON.stringify(row.key)) ?? true) groups.push(row.key);
  if (groups.length === 0 && !query.bySubject && query.groupBy.length === 0) groups.push([]);
  const given = rowByRow(found(snapshot, { ...query, byValue: undefined }, boundaries, pieces));
  let next = await given.next();
  for (let w = 1; w < boundaries.length; w++) {
    const windowStart = boundaries[w - 1] ?? 0;
    const windowEnd = boundaries[w] ?? 0;
    const out: MeterRow[] = [];
    for (const key of groups) {
      const row = next.done ? undefined : next.value;
      if (row !== undefined && row.windowStart === windowStart && sameKey(row.key, key)) {
        out.push(row);
        next = await given.next();
      } else out.push({ windowStart, windowEnd, key, value: '0' });
    }
    yield out;
  }
}

async function* rowByRow(chunks: AsyncIterable<MeterRow[]>): AsyncGenerator<MeterRow> {
  for await (const rows of chunks) yield* rows;
}

const sameKey = (a: MeterRow['key'], b: MeterRow['key']): boolean => a.every((part, i) => part === b[i]);

/** Rows after the given one, and no more than asked for. */
async function* limited(rows: AsyncIterable<MeterRow[]>, query: MeterQuery): AsyncGenerator<MeterRow[]> {
  let left = query.limit ?? Number.POSITIVE_INFINITY;
  for await (const chunk of rows) {
    const { after } = query;
    const coming = after === undefined ? chunk : chunk.filter((row) => isAfter(row, after));
    if (coming.length >= left) {
      yield coming.slice(0, left);
      return;
    }
    left -= coming.length;
    if (coming.length > 0) yield coming;
  }
}

function isAfter(row: MeterRow, after: { windowStart: number; key: readonly (string | null)[] }): boolean {
  if (row.windowStart !== after.windowStart) return row.windowStart > after.windowStart;
  for (let i = 0; i < row.key.length; i++) {
    const order = compareTexts(row.key[i] ?? null, after.key[i] ?? null);
    if (order !== 0) return order > 0;
  }
  return false;
}

/** The database's order: bytes of UTF-8, nulls first. */
function compareTexts(a: string | null, b: string | null): number {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
