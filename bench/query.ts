/** Questions about 30 days, by HTTP from rollups, and the same answers from the raw events in SQL. */
import type pg from 'pg';
import { BUILTIN_METERS } from '../metering/index.ts';
import { foldCoarse } from '../processors/index.ts';
import { TIME_TABLES } from '../schemas/index.ts';
import { detectEngine } from '../sinks/index.ts';
import { openEmbeddedPostgresPool } from './database.ts';
import { TENANTS } from './load.ts';
import { type BenchServer, KEY } from './process.ts';
import { add, fresh, median, SCRATCH } from './report.ts';

const DAYS = 30;
const DAY = 86_400_000;
const HOUR = 3_600_000;
/** Events an hour, tenant and endpoint; one tenant is bigger than the others. */
const EVENTS = 5;
const EVENTS_OF_BIG = 60;
const BIG = 'tenant_0001';
const ENDPOINTS = 5;
const iso = (ms: number) => new Date(ms).toISOString();

interface Question {
  name: string;
  meter: 'tokens' | 'request_duration';
  parameters: string;
  /** the same from raw events; $1 from, $2 to; the last column is the value */
  sql: string;
}

const FROM = `FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id WHERE e."timestamp" >= $1 AND e."timestamp" < $2`;
const SUM = 'sum(e.tokens_consumed)::float8 AS value';
const P95 = '(array_agg(e.duration_ms ORDER BY e.duration_ms))[1 + floor(0.95 * (count(*) - 1))::int]::float8 AS value';
const BY_HOUR = `date_trunc('hour', e."timestamp")`;

const QUESTIONS: readonly Question[] = (
  [
    ['tokens', 'sum', SUM],
    ['request_duration', 'p95', P95],
  ] as const
).flatMap(([meter, what, value]): Question[] => [
  {
    name: `one tenant × ${ENDPOINTS} endpoints, ${what} by hour`,
    meter,
    parameters: `subject=${BIG}&windowSize=HOUR&groupBy=endpoint`,
    sql: `SELECT ${BY_HOUR}, e.endpoint, ${value} ${FROM} AND t.customer_id = '${BIG}' GROUP BY 1, 2 ORDER BY 1, 2`,
  },
  {
    name: `${TENANTS} tenants, ${what} by hour`,
    meter,
    parameters: 'windowSize=HOUR',
    sql: `SELECT ${BY_HOUR}, ${value} ${FROM} GROUP BY 1 ORDER BY 1`,
  },
  {
    name: `${TENANTS} tenants × ${ENDPOINTS} endpoints, ${what} by hour and endpoint`,
    meter,
    parameters: 'windowSize=HOUR&groupBy=endpoint',
    sql: `SELECT ${BY_HOUR}, e.endpoint, ${value} ${FROM} GROUP BY 1, 2 ORDER BY 1, 2`,
  },
  {
    name: `top 10 of ${TENANTS} tenants by ${what}`,
    meter,
    parameters: 'groupBy=subject&top=10&orderBy=value',
    sql: `SELECT t.customer_id, ${value} ${FROM} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10`,
  },
]);

export async function query(): Promise<void> {
  const server = await fresh('query');
  const database = await openEmbeddedPostgresPool(`${SCRATCH}query`);
  try {
    await ask(server, database.pool);
  } finally {
    await database.close();
    await server.stop();
  }
}

async function ask(server: BenchServer, pool: pg.Pool): Promise<void> {
  const to = Math.floor(Date.now() / DAY) * DAY;
  const from = to - DAYS * DAY;
  const events = await fillMonth(pool, from, to);
  for (const { name, meter, parameters, sql } of QUESTIONS) {
    const raw: number[] = [];
    let expected: number[] = [];
    for (let i = 0; i < 2; i++) {
      const began = performance.now();
      const { rows } = await pool.query<(string | number)[]>({
        text: sql,
        values: [iso(from), iso(to)],
        rowMode: 'array',
      });
      raw.push(performance.now() - began);
      expected = rows.map((row) => Number(row.at(-1)));
    }
    const times: number[] = [];
    for (let i = 0; i < 60; i++) {
      const began = performance.now();
      const answer = await fetch(
        `${server.url}/api/v1/meters/${meter}/query?from=${iso(from)}&to=${iso(to)}&${parameters}`,
        { headers: { authorization: `Bearer ${KEY}` } },
      );
      const body = (await answer.json()) as { data: { value: number }[] };
      times.push(performance.now() - began);
      check(
        name,
        meter,
        body.data.map((row) => row.value),
        expected,
      );
    }
    // The first ones warm the server up.
    const sorted = times.slice(10).toSorted((a, b) => a - b);
    const p95 = sorted[Math.floor(sorted.length * 0.95)] ?? 0;
    const yardstick = Math.min(...raw);
    add(
      `query, 30 days: ${name}`,
      `p50 ${median(sorted).toFixed(1)} ms, p95 ${p95.toFixed(1)} ms`,
      `${Math.round(yardstick / median(sorted))} × SQL over ${(events / 1e6).toFixed(1)} million raw events, ${Math.round(yardstick)} ms`,
      'p95 < 50 ms; ≥ 100 ×',
    );
  }
}

/** Sums are the same, percentiles within 1 %. */
function check(name: string, meter: string, got: readonly number[], expected: readonly number[]): void {
  const error = meter === 'tokens' ? 0 : 0.0101;
  if (got.length !== expected.length) throw new Error(`${name}: ${got.length} rows, expected ${expected.length}`);
  got.forEach((value, i) => {
    const due = expected[i] ?? 0;
    // Which of equal tenants come tenth may differ.
    if (Math.abs(value - due) > due * error) throw new Error(`${name}: row ${i} is ${value}, expected ${due}`);
  });
}

/** 30 days of raw events, their hour rows by SQL, and the coarse rows by the code that folds them. @returns events */
async function fillMonth(pool: pg.Pool, from: number, to: number): Promise<number> {
  const client = await pool.connect();
  const engine = await detectEngine(pool);
  const days = Array.from({ length: DAYS }, (_, i) => from + i * DAY);
  for (const table of ['events', 'rollups_hour', 'rollups_coarse'] as const)
    await engine.ensureChunks(client, TIME_TABLES[table], days);
  await client.query(
    `INSERT INTO tenants (customer_id, name, tier, status) SELECT 'tenant_' || lpad(i::text, 4, '0'), 'bench', 'discovered', 'discovered' FROM generate_series(0, $1 - 1) AS i`,
    [TENANTS],
  );
  const { rows: shards } = await client.query<{ shard: number }>('SELECT shard FROM log_offsets ORDER BY shard');
  await client.query(
    `CREATE TEMP TABLE bench_tenants AS SELECT id, customer_id, row_number() OVER (ORDER BY customer_id) AS n,
       ($1::int[])[1 + row_number() OVER (ORDER BY customer_id) % cardinality($1::int[])] AS shard FROM tenants`,
    [shards.map((row) => row.shard)],
  );
  for (const meter of [2, 3])
    await client.query(
      `INSERT INTO rollup_groups (group_key, tenant_id, meter_id, values)
       SELECT md5(t.id::text || $1::int || e)::uuid, t.id, $1::int, ARRAY['/e' || e, CASE WHEN $1::int = 2 THEN 'GET' END]
       FROM bench_tenants AS t, generate_series(1, ${ENDPOINTS}) AS e`,
      [meter],
    );
  let events = 0;
  for (const day of days) {
    const range = [iso(day), iso(day + DAY)];
    const { rowCount } = await client.query(
      `INSERT INTO events ("timestamp", received_at, log_offset, shard, status_code, tenant_id, key, keyed_by_source, idempotency_key, type, user_id,
         request_id, endpoint, method, duration_ms, tokens_consumed)
       SELECT at, at, 0, shard, 200, id, md5(id::text || at::text || e)::uuid, false, 'k' || random(), 'api_call', 'u' || r % 50, 'r' || random(),
         '/e' || e, 'GET', 1 + r % 3000, r % 5000
       FROM (
         SELECT h + (k * 3600.0 / m + random() * 3600.0 / m - 3600.0 / m) * interval '1 second' AS at, t.*, e, (random() * random() * 1e9)::int AS r
         FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 hour', interval '1 hour') AS h, bench_tenants AS t,
           generate_series(1, ${ENDPOINTS}) AS e,
           LATERAL (SELECT CASE WHEN t.customer_id = '${BIG}' THEN ${EVENTS_OF_BIG} ELSE ${EVENTS} END AS m) AS s,
           LATERAL generate_series(1, s.m) AS k
       ) AS made`,
      range,
    );
    events += rowCount ?? 0;
    const head = `INSERT INTO rollups_hour (bucket, meter_id, shard, tenant_id, group_key, count, sum, min, max, bins, bin_counts)`;
    await client.query(
      `${head}
       SELECT ${BY_HOUR}, 3, e.shard, e.tenant_id, md5(e.tenant_id::text || 3 || substr(e.endpoint, 3))::uuid, count(*), sum(e.tokens_consumed), NULL, NULL, NULL, NULL
       FROM events AS e WHERE e."timestamp" >= $1 AND e."timestamp" < $2 GROUP BY 1, 3, 4, 5`,
      range,
    );
    await client.query(
      `${head}
       SELECT hour, 2, shard, tenant_id, group_key, sum(n), sum(total), min(low), max(high), array_agg(bin ORDER BY bin), array_agg(n ORDER BY bin)
       FROM (
         SELECT ${BY_HOUR} AS hour, e.shard, e.tenant_id, md5(e.tenant_id::text || 2 || substr(e.endpoint, 3))::uuid AS group_key,
           (ceil(ln(e.duration_ms::float8) / ln(1.01::float8 / 0.99)) + 4096)::int AS bin, count(*) AS n, sum(e.duration_ms) AS total, min(e.duration_ms) AS low,
           max(e.duration_ms) AS high
         FROM events AS e WHERE e."timestamp" >= $1 AND e."timestamp" < $2 GROUP BY 1, 2, 3, 4, 5
       ) AS binned GROUP BY hour, shard, tenant_id, group_key`,
      range,
    );
    const hours = new Set(Array.from({ length: 24 }, (_, i) => day + i * HOUR));
    for (const { shard } of shards) {
      await client.query('BEGIN');
      await foldCoarse(client, shard, { day, hours, wholeDay: true, again: false }, BUILTIN_METERS);
      await client.query('COMMIT');
    }
  }
  await client.query('UPDATE log_offsets SET folded_until = $1, coarse_until = $1, watermark = $1', [iso(to)]);
  await client.query('VACUUM ANALYZE');
  client.release();
  return events;
}
