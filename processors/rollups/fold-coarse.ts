import { hash } from 'node:crypto';
import type { ClientBase } from 'pg';
import {
  compareDecimals,
  type Decimal,
  decimalFrom,
  ExactSum,
  hasLevel,
  LEVEL,
  LEVELS,
  NIL_UUID,
  sketchToText,
} from '../../metering/index.ts';
import type { Meter } from '../../schemas/index.ts';
import { BinaryCopy, copyInto } from '../../sinks/index.ts';
import { Bins } from './bins.ts';
import { DAY, HOUR } from './rollups.ts';

/** What of a shard's day is to be added up. Times are Unix ms, UTC. */
export interface CoarseDay {
  day: number;
  /** hours whose rows by hour are made */
  hours: ReadonlySet<number>;
  /** whether its rows by day are made: all its hours have passed */
  wholeDay: boolean;
  /** such rows are there already and are replaced */
  again: boolean;
}

/** A shard's hour rows of one day, one series after another. */
const HOUR_ROWS = `
  DECLARE hour_rows NO SCROLL CURSOR FOR
  SELECT (extract(epoch FROM r.bucket) * 1000)::float8 AS bucket, r.meter_id, r.tenant_id, r.group_key, g.values::text AS values,
    r.count::text AS count, r.sum::text AS sum, r.min::text AS min, r.max::text AS max, r.last::text AS last,
    (extract(epoch FROM r.last_at) * 1000)::float8 AS last_at, r.last_key::text AS last_key,
    array_to_string(r.bins, ',') AS bins, array_to_string(r.bin_counts, ',') AS counts
  FROM rollups_hour AS r LEFT JOIN rollup_groups AS g USING (group_key)
  WHERE r.shard = $1 AND r.bucket >= $2 AND r.bucket < $3
  ORDER BY r.meter_id, r.tenant_id, r.group_key`;
const FETCH = 2_000;
const COPY =
  'COPY rollups_coarse (bucket, level, meter_id, shard, tenant_id, group_key, count, last_at, last_key, sum, min, max, last, sketch) FROM STDIN (FORMAT binary)';
const COLUMNS = 14;
const COPY_BYTES = 1 << 20;

const FORGET = `
  DELETE FROM rollups_coarse WHERE shard = $1 AND bucket >= $2 AND bucket < $3
    AND CASE WHEN level >= ${LEVEL.byDay} THEN $4 ELSE bucket = ANY ($5::timestamptz[]) END`;
const MARK = 'INSERT INTO stale_hours (shard, hour) SELECT $1, unnest($2::timestamptz[]) ON CONFLICT DO NOTHING';
const UNMARK = 'DELETE FROM stale_hours WHERE shard = $1 AND hour = ANY ($2::timestamptz[])';
const INSERT_GROUPS = `
  INSERT INTO rollup_groups (group_key, tenant_id, meter_id, values)
  SELECT k.group_key, '${NIL_UUID}', k.meter_id, k.values::text[] FROM unnest($1::uuid[], $2::int[], $3::text[]) AS k(group_key, meter_id, values)
  ORDER BY 1 ON CONFLICT (group_key) DO NOTHING`;

/**
 * Lists hours whose hour rows the caller's transaction changes, so that nobody reads coarse rows for them any more.
 * `writeRollups` and `deleteCells` call it; so does whoever changes hour rows by other means.
 */
export async function markStale(client: ClientBase, shard: number, hours: Iterable<number>): Promise<void> {
  const times = [...hours].map(iso);
  if (times.length > 0) await client.query({ name: 'mark_stale', text: MARK, values: [shard, times] });
}

/** Makes the coarse rows of (hours of) one day from its hour rows, within the caller's fenced transaction. */
export async function foldCoarse(
  client: ClientBase,
  shard: number,
  work: CoarseDay,
  meters: readonly Meter[],
): Promise<void> {
  const { day, hours, wholeDay, again } = work;
  const times = [...hours].map(iso);
  const range = [shard, iso(day), iso(day + DAY)];
  if (again) await client.query(FORGET, [...range, wholeDay, times]);
  await client.query(UNMARK, [shard, times]);
  const totals = new DayTotals(shard, work);
  const byId = new Map(meters.map((meter) => [meter.id, meter]));
  await client.query(HOUR_ROWS, wholeDay ? range : [shard, iso(Math.min(...hours)), iso(Math.max(...hours) + HOUR)]);
  for (let more = true; more; ) {
    const { rows } = await client.query<HourRow>(`FETCH ${FETCH} FROM hour_rows`);
    more = rows.length === FETCH;
    for (const row of rows) {
      const meter = byId.get(row.meter_id);
      if (meter !== undefined && (wholeDay || hours.has(row.bucket))) totals.add(row, meter);
    }
    if (!more) totals.finish();
    if (totals.copy.bytes > COPY_BYTES || (!more && totals.copy.rows > 0)) {
      await copyInto(client, COPY, totals.copy.finish());
      totals.copy.reset();
    }
  }
  await client.query('CLOSE hour_rows');
  const groups = [...totals.groups];
  if (groups.length > 0)
    await client.query(INSERT_GROUPS, [
      groups.map(([key]) => key),
      groups.map(([, group]) => group.meterId),
      groups.map(([, group]) => group.values),
    ]);
}

interface HourRow {
  bucket: number;
  meter_id: number;
  tenant_id: string;
  group_key: string;
  /** array literal; null for a group that is not known */
  values: string | null;
  count: string;
  sum: string | null;
  min: string | null;
  max: string | null;
  last: string | null;
  last_at: number | null;
  last_key: string | null;
  bins: string | null;
  counts: string | null;
}

/** What rows add up to. */
class Total {
  count = 0;
  sum: ExactSum | null = null;
  min: Decimal | null = null;
  max: Decimal | null = null;
  last: Decimal | null = null;
  lastAt = Number.NEGATIVE_INFINITY;
  lastKey = '';
  bins: Bins | null = null;

  add(row: DecodedRow): void {
    this.count += row.count;
    if (row.sum !== null) {
      this.sum ??= new ExactSum();
      this.sum.add(row.sum);
    }
    if (row.min !== null && (this.min === null || compareDecimals(row.min, this.min) < 0)) this.min = row.min;
    if (row.max !== null && (this.max === null || compareDecimals(row.max, this.max) > 0)) this.max = row.max;
    const { last, lastAt, lastKey } = row;
    if (last !== null && (lastAt > this.lastAt || (lastAt === this.lastAt && lastKey > this.lastKey))) {
      this.last = last;
      this.lastAt = lastAt;
      this.lastKey = lastKey;
    }
    if (row.bins.length === 0) return;
    this.bins ??= new Bins();
    for (let i = 0; i < row.bins.length; i++) this.bins.add(row.bins[i] as number, row.counts[i] as number);
  }
}

interface DecodedRow {
  count: number;
  sum: Decimal | null;
  min: Decimal | null;
  max: Decimal | null;
  last: Decimal | null;
  lastAt: number;
  lastKey: string;
  bins: readonly number[];
  counts: readonly number[];
}

const decimal = (text: string | null): Decimal | null => (text === null ? null : decimalFrom(text));
const numbers = (text: string | null): number[] => (text === null || text === '' ? [] : text.split(',').map(Number));

function decode(row: HourRow): DecodedRow {
  return {
    count: Number(row.count),
    sum: decimal(row.sum),
    min: decimal(row.min),
    max: decimal(row.max),
    last: decimal(row.last),
    lastAt: row.last_at ?? Number.NEGATIVE_INFINITY,
    lastKey: row.last_key ?? '',
    bins: numbers(row.bins),
    counts: numbers(row.counts),
  };
}

interface Place {
  tenantId: string;
  groupKey: string;
  /** by level and bucket */
  totals: Map<number, Map<number, Total>>;
}

/**
 * Adds rows up that come in the order of meter, tenant and group: what a tenant or group needs is written when the next
 * one begins, so memory holds one tenant, one group, and the groups of all tenants of one meter.
 */
class DayTotals {
  readonly copy = new BinaryCopy();
  /** groups over all tenants that rows were written for */
  readonly groups = new Map<string, { meterId: number; values: string }>();
  readonly #shard: number;
  readonly #work: CoarseDay;
  #meter: Meter | undefined;
  #levels: readonly number[] = [];
  #series: Place | undefined;
  #tenant: Place | undefined;
  #overall: Place | undefined;
  readonly #byValues = new Map<string, Place>();

  constructor(shard: number, work: CoarseDay) {
    this.#shard = shard;
    this.#work = work;
  }

  add(row: HourRow, meter: Meter): void {
    if (this.#meter !== meter) {
      this.finish();
      this.#meter = meter;
      this.#levels = LEVELS.filter((level) => hasLevel(meter, level));
      this.#overall = newPlace(NIL_UUID, NIL_UUID);
    }
    if (this.#tenant?.tenantId !== row.tenant_id) {
      this.#write(this.#tenant);
      this.#tenant = newPlace(row.tenant_id, NIL_UUID);
    }
    if (this.#series?.groupKey !== row.group_key) {
      this.#write(this.#series);
      this.#series = newPlace(row.tenant_id, row.group_key);
    }
    const { day, hours, wholeDay } = this.#work;
    const decoded = decode(row);
    for (const level of this.#levels) {
      const byDay = (level & LEVEL.byDay) !== 0;
      if (byDay ? !wholeDay : !hours.has(row.bucket)) continue;
      const totals = this.#placeOf(level, meter, row).totals;
      const buckets = totals.get(level) ?? new Map<number, Total>();
      totals.set(level, buckets);
      const bucket = byDay ? day : row.bucket;
      const total = buckets.get(bucket) ?? new Total();
      buckets.set(bucket, total);
      total.add(decoded);
    }
  }

  #placeOf(level: number, meter: Meter, row: HourRow): Place {
    const byTenant = (level & LEVEL.byTenant) !== 0;
    const byGroup = (level & LEVEL.byGroup) !== 0;
    const place = byTenant
      ? byGroup
        ? this.#series
        : this.#tenant
      : byGroup
        ? this.#groupOf(meter, row)
        : this.#overall;
    if (place === undefined) throw new Error('rows of a series come together');
    return place;
  }

  #groupOf(meter: Meter, row: HourRow): Place {
    const values = row.values ?? `{${meter.groupBy.map(() => 'NULL').join(',')}}`;
    const known = this.#byValues.get(values);
    if (known !== undefined) return known;
    const place = newPlace(NIL_UUID, overallGroupKey(meter.id, values));
    this.groups.set(place.groupKey, { meterId: meter.id, values });
    this.#byValues.set(values, place);
    return place;
  }

  /** Writes what is still in memory. */
  finish(): void {
    this.#write(this.#series);
    this.#write(this.#tenant);
    this.#write(this.#overall);
    for (const place of this.#byValues.values()) this.#write(place);
    this.#byValues.clear();
    this.#series = undefined;
    this.#tenant = undefined;
    this.#overall = undefined;
  }

  #write(place: Place | undefined): void {
    if (place === undefined || this.#meter === undefined) return;
    for (const [level, buckets] of place.totals)
      for (const [bucket, total] of buckets)
        writeTotal(this.copy, this.#shard, this.#meter.id, level, bucket, place, total);
  }
}

const newPlace = (tenantId: string, groupKey: string): Place => ({ tenantId, groupKey, totals: new Map() });

/** The key of a group over all tenants: first 128 bits of SHA-256, as those of a tenant's groups. */
function overallGroupKey(meterId: number, values: string): string {
  const digest = hash('sha256', `${NIL_UUID}\n${meterId}\n${values}`, 'hex');
  return digest.slice(0, 32).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

const uuidBytes = (uuid: string): Buffer => Buffer.from(uuid.replaceAll('-', ''), 'hex');

function writeTotal(
  copy: BinaryCopy,
  shard: number,
  meterId: number,
  level: number,
  bucket: number,
  place: Place,
  total: Total,
): void {
  copy.row(COLUMNS);
  copy.timestamptz(bucket);
  copy.int4(level);
  copy.int4(meterId);
  copy.int4(shard);
  copy.uuid(uuidBytes(place.tenantId), 0);
  copy.uuid(uuidBytes(place.groupKey), 0);
  copy.int8(total.count);
  if (total.last === null) {
    copy.null();
    copy.null();
  } else {
    copy.timestamptz(total.lastAt);
    copy.uuid(uuidBytes(total.lastKey), 0);
  }
  for (const value of [total.sum, total.min, total.max, total.last])
    if (value === null) copy.null();
    else copy.numeric(value);
  if (total.bins === null) copy.null();
  else copy.text(sketchToText(total.bins.keys, total.bins.counts, total.bins.length));
}

const iso = (ms: number): string => new Date(ms).toISOString();
