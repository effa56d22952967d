import { hash } from 'node:crypto';
import type { ClientBase } from 'pg';
import { hasLevel, LEVEL, LEVELS, NIL_UUID, sketchToText } from '../../metering/index.ts';
import type { Meter } from '../../schemas/index.ts';
import { Bins } from './bins.ts';
import { CoarseWriter, type RowTexts, Total, VALUE_TEXTS, valuesOf } from './coarse-rows.ts';
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
    ${VALUE_TEXTS},
    array_to_string(r.bins, ',') AS bins, array_to_string(r.bin_counts, ',') AS counts
  FROM rollups_hour AS r LEFT JOIN rollup_groups AS g USING (group_key)
  WHERE r.shard = $1 AND r.bucket >= $2 AND r.bucket < $3
  ORDER BY r.meter_id, r.tenant_id, r.group_key`;
const FETCH = 2_000;
const FORGET = `
  DELETE FROM rollups_coarse WHERE shard = $1 AND bucket >= $2 AND bucket < $3
    AND CASE WHEN level >= ${LEVEL.byDay} THEN $4 ELSE bucket = ANY ($5::timestamptz[]) END`;
const MARK = 'INSERT INTO stale_hours (shard, hour) SELECT $1, unnest($2::timestamptz[]) ON CONFLICT DO NOTHING';
const UNMARK = 'DELETE FROM stale_hours WHERE shard = $1 AND hour = ANY ($2::timestamptz[])';
/** An hour that is listed already changes too: its lock and its version tell a merge under way (`merge-shards.ts`). */
const UNMERGE = `
  INSERT INTO unmerged_hours AS u (hour) SELECT hour FROM unnest($1::timestamptz[]) AS hour ORDER BY 1
  ON CONFLICT (hour) DO UPDATE SET version = u.version + 1`;
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
  const writer = new CoarseWriter(client);
  const totals = new DayTotals(shard, work, writer);
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
    await writer.send(!more);
  }
  await client.query('CLOSE hour_rows');
  const groups = [...totals.groups];
  if (groups.length > 0)
    await client.query(INSERT_GROUPS, [
      groups.map(([key]) => key),
      groups.map(([, group]) => group.meterId),
      groups.map(([, group]) => group.values),
    ]);
  // Last, so that other shards and a merge that come to the same hours wait for a commit only.
  await client.query(UNMERGE, [times]);
}

interface HourRow extends RowTexts {
  bucket: number;
  meter_id: number;
  tenant_id: string;
  group_key: string;
  /** array literal; null for a group that is not known */
  values: string | null;
  bins: string | null;
  counts: string | null;
}

/** What rows add up to, with their sketches. */
class SketchedTotal extends Total {
  #bins: Bins | null = null;

  addBins(bins: readonly number[], counts: readonly number[]): void {
    if (bins.length === 0) return;
    this.#bins ??= new Bins();
    for (let i = 0; i < bins.length; i++) this.#bins.add(bins[i] as number, counts[i] as number);
  }

  get sketch(): string | null {
    return this.#bins === null ? null : sketchToText(this.#bins.keys, this.#bins.counts, this.#bins.length);
  }
}

const numbers = (text: string | null): number[] => (text === null || text === '' ? [] : text.split(',').map(Number));

interface Series {
  tenantId: string;
  groupKey: string;
  /** by level and bucket */
  totals: Map<number, Map<number, SketchedTotal>>;
}

/**
 * Adds rows up that come in the order of meter, tenant and group: what a tenant or group needs is written when the next
 * one begins, so memory holds one tenant, one group, and the groups of all tenants of one meter.
 */
class DayTotals {
  /** groups over all tenants that rows were written for */
  readonly groups = new Map<string, { meterId: number; values: string }>();
  readonly #shard: number;
  readonly #work: CoarseDay;
  readonly #writer: CoarseWriter;
  #meter: Meter | undefined;
  #levels: readonly number[] = [];
  #series: Series | undefined;
  #tenant: Series | undefined;
  #overall: Series | undefined;
  readonly #byValues = new Map<string, Series>();

  constructor(shard: number, work: CoarseDay, writer: CoarseWriter) {
    this.#shard = shard;
    this.#work = work;
    this.#writer = writer;
  }

  add(row: HourRow, meter: Meter): void {
    if (this.#meter !== meter) {
      this.finish();
      this.#meter = meter;
      this.#levels = LEVELS.filter((level) => hasLevel(meter, level));
      this.#overall = newSeries(NIL_UUID, NIL_UUID);
    }
    if (this.#tenant?.tenantId !== row.tenant_id) {
      this.#write(this.#tenant);
      this.#tenant = newSeries(row.tenant_id, NIL_UUID);
    }
    if (this.#series?.groupKey !== row.group_key) {
      this.#write(this.#series);
      this.#series = newSeries(row.tenant_id, row.group_key);
    }
    const { day, hours, wholeDay } = this.#work;
    const values = valuesOf(row);
    const bins = numbers(row.bins);
    const counts = numbers(row.counts);
    for (const level of this.#levels) {
      const byDay = (level & LEVEL.byDay) !== 0;
      if (byDay ? !wholeDay : !hours.has(row.bucket)) continue;
      const totals = this.#seriesOf(level, meter, row).totals;
      const buckets = totals.get(level) ?? new Map<number, SketchedTotal>();
      totals.set(level, buckets);
      const bucket = byDay ? day : row.bucket;
      const total = buckets.get(bucket) ?? new SketchedTotal();
      buckets.set(bucket, total);
      total.add(values);
      total.addBins(bins, counts);
    }
  }

  #seriesOf(level: number, meter: Meter, row: HourRow): Series {
    const byTenant = (level & LEVEL.byTenant) !== 0;
    const byGroup = (level & LEVEL.byGroup) !== 0;
    const series = byTenant
      ? byGroup
        ? this.#series
        : this.#tenant
      : byGroup
        ? this.#groupOf(meter, row)
        : this.#overall;
    if (series === undefined) throw new Error('rows of a series come together');
    return series;
  }

  #groupOf(meter: Meter, row: HourRow): Series {
    const values = row.values ?? `{${meter.groupBy.map(() => 'NULL').join(',')}}`;
    const known = this.#byValues.get(values);
    if (known !== undefined) return known;
    const series = newSeries(NIL_UUID, overallGroupKey(meter.id, values));
    this.groups.set(series.groupKey, { meterId: meter.id, values });
    this.#byValues.set(values, series);
    return series;
  }

  /** Writes what is still in memory. */
  finish(): void {
    this.#write(this.#series);
    this.#write(this.#tenant);
    this.#write(this.#overall);
    for (const series of this.#byValues.values()) this.#write(series);
    this.#byValues.clear();
    this.#series = undefined;
    this.#tenant = undefined;
    this.#overall = undefined;
  }

  #write(series: Series | undefined): void {
    if (series === undefined || this.#meter === undefined) return;
    const { tenantId, groupKey, totals } = series;
    const own = { shard: this.#shard, meterId: this.#meter.id, tenantId, groupKey };
    for (const [level, buckets] of totals)
      for (const [bucket, total] of buckets) this.#writer.add({ ...own, level, bucket }, total, total.sketch);
  }
}

const newSeries = (tenantId: string, groupKey: string): Series => ({ tenantId, groupKey, totals: new Map() });

/** The key of a group over all tenants: first 128 bits of SHA-256, as those of a tenant's groups. */
function overallGroupKey(meterId: number, values: string): string {
  const digest = hash('sha256', `${NIL_UUID}\n${meterId}\n${values}`, 'hex');
  return digest.slice(0, 32).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

const iso = (ms: number): string => new Date(ms).toISOString();
