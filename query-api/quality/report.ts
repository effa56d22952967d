/** How good the data is: what is late, doubled, refused, missing or unknown. From a bounded sample and from what commits have counted. */
import type { Pool } from 'pg';
import { ATTRIBUTE_COLUMNS, type Meter } from '../../schemas/index.ts';
import type { EventLog } from '../../sinks/index.ts';
import { LATE_MS, type SampledGroup, sampleEvents } from './sample.ts';

const HOUR = 3_600_000;
/** Meters whose values are looked for. */
const MOST_METERS = 100;
const FIELDS = ['user_id', 'request_id', ...ATTRIBUTE_COLUMNS.map((column) => column.name)];

export interface QualityRequest {
  tenantIds: readonly string[] | null;
  /** those that the caller may see */
  meters: readonly Meter[];
  now: number;
  /** how far back events are looked at, ms */
  windowMs: number;
}

export async function qualityReport(pool: Pool, log: EventLog, request: QualityRequest) {
  const { tenantIds, meters, now, windowMs } = request;
  const range = { from: now - windowMs, to: now + HOUR };
  const valued = meters
    .filter((meter) => meter.valueProperty !== undefined && meter.eventType !== '*')
    .slice(0, MOST_METERS);
  const properties = [...new Set([...FIELDS, ...valued.flatMap((meter) => meter.valueProperty ?? [])])];
  const { share, groups } = await sampleEvents(pool, tenantIds, range, properties);
  const types = new Map([...Map.groupBy(groups, (one) => one.type)].map(([type, own]) => [type, added(own)]));
  const counted = new Set(meters.map((meter) => meter.eventType));
  const all = added(groups);
  return {
    checked_at: iso(now),
    window: { from: iso(range.from), to: iso(now), sampled_share: share, sampled_events: all.events },
    late: { after_seconds: LATE_MS / 1000, share: ratio(all.late, all.events) },
    tenants: await tenantsOf(pool, tenantIds, groups, now),
    ...(tenantIds === null ? { partitions: await partitionsOf(pool, log, now) } : {}),
    dead_letters: await deadLettersOf(pool, tenantIds),
    fields: [...types].flatMap(([type, { events, missing }]) =>
      FIELDS.map((field) => ({ type, field, null_share: ratio(missing.get(field) ?? 0, events) })),
    ),
    // Types that only meters of every type count.
    unknown_event_types: [...types]
      .filter(([type]) => !counted.has(type))
      .map(([type, { events }]) => ({ type, sampled_events: events })),
    missing_values: valued.flatMap(({ slug, eventType, valueProperty = '' }) => {
      const found = types.get(eventType);
      if (found === undefined) return [];
      const without = found.missing.get(valueProperty) ?? 0;
      return [{ meter: slug, property: valueProperty, type: eventType, share: ratio(without, found.events) }];
    }),
  };
}
export type QualityReport = Awaited<ReturnType<typeof qualityReport>>;

const iso = (ms: number): string => new Date(ms).toISOString();
const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : Math.round((part / whole) * 1e6) / 1e6);

function added(groups: readonly SampledGroup[]) {
  const total = { events: 0, late: 0, commitLag: 0, newest: 0, missing: new Map<string, number>() };
  for (const { events, late, commitLag, newest, missing } of groups) {
    total.events += events;
    total.late += late;
    total.commitLag = Math.max(total.commitLag, commitLag);
    total.newest = Math.max(total.newest, newest);
    for (const [name, n] of missing) total.missing.set(name, (total.missing.get(name) ?? 0) + n);
  }
  return total;
}

/** Per tenant: freshness and lateness of the sample, duplicates and dead letters of all time. */
async function tenantsOf(
  pool: Pool,
  tenantIds: readonly string[] | null,
  groups: readonly SampledGroup[],
  now: number,
) {
  const sampled = new Map([...Map.groupBy(groups, (one) => one.tenantId)].map(([id, own]) => [id, added(own)]));
  const { rows } = await pool.query<{ id: string; tenant: string; received: number; duplicate: number; dead: number }>(
    `SELECT a.tenant_id AS id, t.customer_id AS tenant, sum(a.received)::float8 AS received, sum(a.duplicate)::float8 AS duplicate,
       sum(a.dead_lettered)::float8 AS dead
     FROM accounting AS a JOIN tenants AS t ON t.id = a.tenant_id
     WHERE $1::uuid[] IS NULL OR a.tenant_id = ANY ($1) GROUP BY 1, 2 ORDER BY 2 LIMIT 10000`,
    [tenantIds],
  );
  return rows.map(({ id, tenant, received, duplicate, dead }) => {
    const found = sampled.get(id);
    return {
      tenant,
      // Null: nothing came within the window.
      newest_event_age_seconds: found === undefined ? null : Math.round((now - found.newest) / 1000),
      commit_lag_p99_seconds: found === undefined ? null : ratio(found.commitLag, 1),
      late_share: found === undefined ? null : ratio(found.late, found.events),
      received,
      duplicates: duplicate,
      duplicate_share: ratio(duplicate, received),
      dead_lettered: dead,
    };
  });
}

async function partitionsOf(pool: Pool, log: EventLog, now: number) {
  const ranges = new Map((await log.ranges()).map(({ partition, end }) => [partition, end]));
  const { rows } = await pool.query<{ partition: number; next: number; committed: number; watermark: number | null }>(
    `SELECT partition, next::float8 AS next, (extract(epoch FROM committed_at) * 1000)::float8 AS committed,
       CASE WHEN isfinite(watermark) THEN (extract(epoch FROM watermark) * 1000)::float8 END AS watermark
     FROM log_offsets WHERE topic = $1 ORDER BY partition`,
    [log.topic],
  );
  return rows.map(({ partition, next, committed, watermark }) => {
    const pending = Math.max(0, (ranges.get(partition) ?? next) - next);
    return {
      partition,
      pending,
      // While nothing waits, everything that was acknowledged is in.
      freshness_lag_seconds: pending === 0 ? 0 : Math.max(0, Math.round((now - committed) / 1000)),
      newest_event: watermark === null ? null : iso(watermark),
    };
  });
}

async function deadLettersOf(pool: Pool, tenantIds: readonly string[] | null) {
  const { rows } = await pool.query<{ reason: string; waiting: number; requeued: number }>(
    `SELECT reason, count(*) FILTER (WHERE requeued_at IS NULL)::float8 AS waiting, count(requeued_at)::float8 AS requeued
     FROM dead_letters WHERE $1::uuid[] IS NULL OR tenant_id = ANY ($1) GROUP BY 1 ORDER BY 1`,
    [tenantIds],
  );
  return rows;
}
