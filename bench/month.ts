/** A month of raw events with the rollups that they have: made in SQL, because it would take a month to come in. */
import type pg from 'pg';
import { BUILTIN_METERS } from '../metering/index.ts';
import { foldCoarse } from '../processors/index.ts';
import { TIME_TABLES } from '../schemas/index.ts';
import { detectEngine } from '../sinks/index.ts';
import { TENANTS } from './load.ts';

export const ENDPOINTS = 5;
export const DAYS = 30;
/** The tenant with ten times the others' traffic. */
export const BIG = 'tenant_0001';
/** Events an hour, tenant and endpoint: 12 million in all. */
const EVENTS = 16;
const EVENTS_OF_BIG = 160;
const DAY = 86_400_000;
const HOUR = 3_600_000;
const iso = (ms: number) => new Date(ms).toISOString();

const RAW = `
  INSERT INTO events ("timestamp", received_at, log_offset, shard, status_code, tenant_id, key, keyed_by_source, idempotency_key, type, user_id,
    request_id, endpoint, method, duration_ms, tokens_consumed)
  SELECT at, at, 0, shard, 200, id, gen_random_uuid(), false, 'k' || r, 'api_call', 'u' || r % 50, 'r' || r, '/e' || e, 'GET', 1 + r % 3000, r % 5000
  FROM (
    SELECT h + (k - 1 + random()) * 3600.0 / m * interval '1 second' AS at, t.*, e, (random() * random() * 1e9)::int AS r
    FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 hour', interval '1 hour') AS h, bench_tenants AS t,
      generate_series(1, ${ENDPOINTS}) AS e,
      LATERAL (SELECT CASE WHEN t.customer_id = '${BIG}' THEN ${EVENTS_OF_BIG} ELSE ${EVENTS} END AS m) AS s,
      LATERAL generate_series(1, s.m) AS k
  ) AS made`;
/** One pass for both meters; what has the same duration's bin counts together. */
const HOURS = `
  WITH binned AS MATERIALIZED (
    SELECT date_trunc('hour', e."timestamp") AS hour, e.shard, e.tenant_id, substr(e.endpoint, 3) AS endpoint,
      (ceil(ln(e.duration_ms::float8) / ln(1.01::float8 / 0.99)) + 4096)::int AS bin, count(*) AS n, sum(e.duration_ms) AS total,
      min(e.duration_ms) AS low, max(e.duration_ms) AS high, sum(e.tokens_consumed) AS tokens
    FROM events AS e WHERE e."timestamp" >= $1 AND e."timestamp" < $2 GROUP BY 1, 2, 3, 4, 5
  ), hours AS MATERIALIZED (
    SELECT hour, shard, tenant_id, endpoint, sum(n) AS count, sum(tokens) AS tokens, sum(total) AS total, min(low) AS low, max(high) AS high,
      array_agg(bin ORDER BY bin) AS bins, array_agg(n ORDER BY bin) AS counts
    FROM binned GROUP BY 1, 2, 3, 4
  )
  INSERT INTO rollups_hour (bucket, meter_id, shard, tenant_id, group_key, count, sum, min, max, bins, bin_counts)
  SELECT hour, 2, shard, tenant_id, md5(tenant_id::text || 2 || endpoint)::uuid, count, total, low, high, bins, counts FROM hours
  UNION ALL
  SELECT hour, 3, shard, tenant_id, md5(tenant_id::text || 3 || endpoint)::uuid, count, tokens, NULL, NULL, NULL, NULL FROM hours`;

/**
 * 30 days of raw events, their hour rows by SQL, and the coarse rows by the code that folds them.
 * @param from start of a day (UTC), Unix ms @returns how many events
 */
export async function fillMonth(pool: pg.Pool, from: number): Promise<number> {
  const days = Array.from({ length: DAYS }, (_, i) => from + i * DAY);
  const shards = await prepare(pool, days);
  // Two at a time: PostgreSQL makes one day while the other one is folded.
  const left = days.values();
  const fill = async () => {
    const client = await pool.connect();
    let events = 0;
    for (const day of left) events += await fillDay(client, day, shards);
    client.release();
    return events;
  };
  const [one, other] = await Promise.all([fill(), fill()]);
  await pool.query('UPDATE log_offsets SET folded_until = $1, coarse_until = $1, watermark = $1', [
    iso(from + DAYS * DAY),
  ]);
  await pool.query('VACUUM ANALYZE');
  return one + other;
}

/** Chunks, tenants, and the groups of both meters. @returns the shards */
async function prepare(pool: pg.Pool, days: readonly number[]): Promise<number[]> {
  const client = await pool.connect();
  const engine = await detectEngine(pool);
  for (const table of ['events', 'rollups_hour', 'rollups_coarse'] as const)
    await engine.ensureChunks(client, TIME_TABLES[table], days);
  await client.query(
    `INSERT INTO tenants (customer_id, name, tier, status) SELECT 'tenant_' || lpad(i::text, 4, '0'), 'bench', 'discovered', 'discovered' FROM generate_series(0, $1 - 1) AS i`,
    [TENANTS],
  );
  const { rows } = await client.query<{ shard: number }>('SELECT shard FROM log_offsets ORDER BY shard');
  const shards = rows.map((row) => row.shard);
  await client.query('CREATE TABLE bench_tenants (id uuid, customer_id text, shard int)');
  await client.query(
    `INSERT INTO bench_tenants
     SELECT id, customer_id, ($1::int[])[1 + row_number() OVER (ORDER BY customer_id) % cardinality($1::int[])] FROM tenants`,
    [shards],
  );
  for (const meter of [2, 3])
    await client.query(
      `INSERT INTO rollup_groups (group_key, tenant_id, meter_id, values)
       SELECT md5(t.id::text || $1::int || e)::uuid, t.id, $1::int, ARRAY['/e' || e, CASE WHEN $1::int = 2 THEN 'GET' END]
       FROM bench_tenants AS t, generate_series(1, ${ENDPOINTS}) AS e`,
      [meter],
    );
  client.release();
  return shards;
}

async function fillDay(client: pg.PoolClient, day: number, shards: readonly number[]): Promise<number> {
  const range = [iso(day), iso(day + DAY)];
  const { rowCount } = await client.query(RAW, range);
  await client.query(HOURS, range);
  const hours = new Set(Array.from({ length: 24 }, (_, i) => day + i * HOUR));
  for (const shard of shards) {
    await client.query('BEGIN');
    await foldCoarse(client, shard, { day, hours, wholeDay: true, again: false }, BUILTIN_METERS);
    await client.query('COMMIT');
  }
  return rowCount ?? 0;
}
