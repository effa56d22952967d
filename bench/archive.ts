/** A big day on its way into the archive beside ingest; a small year, searched. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import { TIME_TABLES } from '../schemas/index.ts';
import { NativeEngine } from '../sinks/index.ts';
import { openEmbeddedPostgresPool } from './database.ts';
import { makeLoad, postAll } from './load.ts';
import { type BenchServer, KEY } from './process.ts';
import { add, fresh, rate, SCRATCH } from './report.ts';

const DAY = 86_400_000;
const EVENTS = 5_000_000;
/** Events a second that come in meanwhile. */
const BESIDE = 5_000;
const WARM_DAYS = 275;
const HOT_DAYS = 90;
const PER_DAY = 1_000;

export const today = Math.floor(Date.now() / DAY) * DAY;
export const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10);

/** Raw rows as the road's load has them, of a log that is no longer written; [from, from + days). */
export async function fill(pool: Pool, from: number, days: number, perDay: number): Promise<void> {
  const client = await pool.connect();
  const starts = Array.from({ length: days }, (_, i) => from + i * DAY);
  await new NativeEngine().ensureChunks(client, TIME_TABLES.events, starts);
  await client.query(
    `INSERT INTO tenants (customer_id, name, tier, status) SELECT 'tenant_' || lpad(i::text, 4, '0'), 'bench', 'discovered', 'discovered' FROM generate_series(0, 199) AS i ON CONFLICT DO NOTHING`,
  );
  const { rows } = await client.query<{ shard: number; next: number }>(
    `INSERT INTO log_offsets AS o (topic, partition, next) VALUES ('bench', 0, $1)
     ON CONFLICT (topic, partition) DO UPDATE SET next = o.next + excluded.next RETURNING shard, next::float8 AS next`,
    [days * perDay],
  );
  const [place] = rows;
  await client.query(
    `INSERT INTO events ("timestamp", received_at, log_offset, shard, status_code, tenant_id, key, keyed_by_source, idempotency_key, type, user_id, request_id, endpoint, method, duration_ms, tokens_consumed, level, message)
     SELECT at, at + interval '1 ms' * floor(random() * 200), $4::bigint - i, $3, CASE WHEN random() < 0.95 THEN 200 ELSE 500 END, t.ids[1 + floor(random() * random() * 200)::int], md5($5 || i)::uuid, false,
       'bench-' || $4::bigint - i, 'api_call', 'user_' || floor(random() * 500), 'bench-' || $4::bigint - i,
       '/api/v1/' || (ARRAY['agents', 'tasks', 'runs', 'search', 'files'])[1 + floor(random() * 5)::int], (ARRAY['POST', 'GET', 'PUT'])[1 + floor(random() * 3)::int],
       round(exp(4 + random() * 2)::numeric, 2), CASE WHEN random() < 0.85 THEN floor(random() * 3000) END, 'info', 'Agent created successfully'
     FROM (SELECT i, to_timestamp($1::float8 / 1000) + (i - 1) * interval '1 ms' * ($2::float8 / $6::float8) AS at FROM generate_series(1, $6::int) AS i) AS g,
       (SELECT array_agg(id ORDER BY customer_id) AS ids FROM tenants) AS t`,
    [from, days * DAY, place?.shard, place?.next, dayOf(from), days * perDay],
  );
  await client.query('ANALYZE events');
  client.release();
}

interface Run {
  status: string;
  error: string | null;
  result: { rows: number; archived: string[] } | null;
  started_at: string;
  ended_at: string;
}

async function ask<T>(server: BenchServer, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(`${server.url}${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as T;
}

/** Asks for a job and waits for its end. @returns how it ended */
async function runJob(server: BenchServer, path: string, body: object, meanwhile?: () => void): Promise<Run> {
  const { job } = await ask<{ job: string }>(server, path, body);
  for (;;) {
    const run = await ask<Run>(server, `/api/v1/jobs/${job}`);
    meanwhile?.();
    if (run.status === 'failed') throw new Error(run.error ?? 'failed');
    if (run.status === 'succeeded') return run;
    await delay(100);
  }
}

const secondsOf = (run: Run): number => (Date.parse(run.ended_at) - Date.parse(run.started_at)) / 1000;

/** The same, in seconds. */
export const jobOf = async (server: BenchServer, path: string, body = {}, meanwhile?: () => void): Promise<number> =>
  secondsOf(await runJob(server, path, body, meanwhile));

/** Archives, and says how long that took. @throws unless exactly `rows` went */
async function archiveRun(server: BenchServer, rows: number, meanwhile?: () => void): Promise<number> {
  const run = await runJob(server, '/api/v1/archives/run', {}, meanwhile);
  if (run.result?.rows !== rows) throw new Error(`archived ${run.result?.rows}, expected ${rows}`);
  return secondsOf(run);
}

interface Listed {
  data: { day: string; rows: number; bytes: number }[];
}

/** Waits from the acknowledgement to visible in a meter query, ms, until `isOver`. */
async function probe(server: BenchServer, isOver: () => boolean): Promise<number[]> {
  const waits: number[] = [];
  for (let i = 0; !isOver(); i++) {
    const event = {
      timestamp: new Date().toISOString(),
      customer_id: 'marker',
      request_id: `marker-${i}`,
      tokens_consumed: 1,
    };
    await postAll(server.url, KEY, [Buffer.from(JSON.stringify(event))], { connections: 1 });
    const began = performance.now();
    for (;;) {
      const { data } = await ask<{ data: { value: number }[] }>(
        server,
        '/api/v1/meters/api_calls/query?subject=marker',
      ).catch(() => ({ data: [] }));
      if (Number(data[0]?.value ?? 0) >= i + 1) break;
      await delay(5);
    }
    waits.push(performance.now() - began);
    await delay(50);
  }
  return waits;
}

const quantileOf = (values: readonly number[], q: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor(q * (values.length - 1))] ?? 0;

export async function archive(): Promise<void> {
  const server = await fresh('archive', { ARCHIVE_DUTY_PERCENT: '100' });
  const { pool, close } = await openEmbeddedPostgresPool(`${SCRATCH}archive`);
  const big = today - 120 * DAY;
  await fill(pool, big, 1, EVENTS);
  const { rows: sizes } = await pool.query<{ bytes: number }>(
    'SELECT pg_total_relation_size($1::regclass)::float8 AS bytes',
    [`events_${dayOf(big).replaceAll('-', '')}`],
  );
  const hot = (sizes[0]?.bytes ?? 0) / EVENTS;
  const began = performance.now();
  await pool.query(
    `COPY (SELECT * FROM events WHERE "timestamp" >= '${dayOf(big)}Z' AND "timestamp" < '${dayOf(big + DAY)}Z') TO '/tmp/tidemark-bench.copy'`,
  );
  const copied = EVENTS / ((performance.now() - began) / 1000);
  let peak = 0;
  const before = server.rss();
  const seconds = await archiveRun(server, EVENTS, () => {
    peak = Math.max(peak, server.rss());
  });
  const listed = await ask<Listed>(server, '/api/v1/archives');
  const cold = (listed.data[0]?.bytes ?? 0) / EVENTS;
  const own = EVENTS / seconds;
  add(
    'archive, a day of 5 million events',
    `${rate(EVENTS, seconds)} to verified Parquet, server ${Math.round(before / 1e6)} → ${Math.round(peak / 1e6)} MB at most`,
    `${(own / copied).toFixed(2)} × COPY … TO a file, ${rate(copied, 1)}`,
    '≥ 0.5 ×',
  );
  add(
    'archive, bytes an event',
    `${cold.toFixed(1)} cold`,
    `${hot.toFixed(0)} hot: ${(hot / cold).toFixed(1)} × smaller`,
    '≤ 30; ≥ 8 ×',
  );
  await close();
  await server.stop();
}

/** The default duty, beside ingest. */
export async function archiveBeside(): Promise<void> {
  const server = await fresh('archive-beside');
  const { pool, close } = await openEmbeddedPostgresPool(`${SCRATCH}archive-beside`);
  await fill(pool, today - 120 * DAY, 1, 2_000_000);
  let isOver = false;
  const load = makeLoad(BESIDE * 60, 500, 'beside', () => Date.now());
  const sending = postAll(server.url, KEY, load.bodies, { connections: 2, perSecond: BESIDE / 500 });
  const probing = probe(server, () => isOver);
  await delay(2_000);
  const seconds = await archiveRun(server, 2_000_000);
  isOver = true;
  const waits = await probing;
  await sending;
  add(
    'freshness while a day is archived',
    `p50 ${quantileOf(waits, 0.5).toFixed(0)} ms, p99 ${quantileOf(waits, 0.99).toFixed(0)} ms`,
    `${BESIDE.toLocaleString('en')} events/s in, ${rate(2_000_000, seconds)} out`,
    'p99 < 1 s',
  );
  await close();
  await server.stop();
}

/** A user's events of a year: 90 days in the database, 275 in the archive. */
export async function archiveQuery(): Promise<void> {
  const server = await fresh('archive-query', { ARCHIVE_DUTY_PERCENT: '100' });
  const { pool, close } = await openEmbeddedPostgresPool(`${SCRATCH}archive-query`);
  const from = today - (WARM_DAYS + HOT_DAYS) * DAY;
  await fill(pool, from, WARM_DAYS + HOT_DAYS, PER_DAY);
  const { rows } = await pool.query<{ n: number }>(
    `SELECT count(*)::float8 AS n FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id WHERE t.customer_id = 'tenant_0007' AND e.user_id = 'user_7'`,
  );
  const seconds = await archiveRun(server, WARM_DAYS * PER_DAY);
  const search = `/api/v1/events?subject=tenant_0007&user_id=user_7&limit=1000&from=${new Date(from).toISOString()}`;
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const began = performance.now();
    const found = await ask<unknown[]>(server, search);
    times.push(performance.now() - began);
    if (found.length !== rows[0]?.n) throw new Error(`found ${found.length}, expected ${rows[0]?.n}`);
  }
  add(
    `a user's events over ${HOT_DAYS} hot and ${WARM_DAYS} warm days`,
    `${times[0]?.toFixed(0)} ms the first time, ${Math.min(...times).toFixed(0)} ms then`,
    `${((seconds / WARM_DAYS) * 1000).toFixed(0)} ms to archive a small day`,
    'answers',
  );
  await close();
  await server.stop();
}
