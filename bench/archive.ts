/** A big day on its way into the archive, alone and beside ingest; a small year, searched. */
import { rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import { TIME_TABLES } from '../schemas/index.ts';
import { NativeEngine } from '../sinks/index.ts';
import { openEmbeddedPostgresPool } from './database.ts';
import { makeLoad, postAll } from './load.ts';
import { type BenchServer, KEY } from './process.ts';
import { add, fresh, rate, SCRATCH } from './report.ts';

const DAY = 86_400_000;
/** Of the big day; BENCH_ARCHIVE_EVENTS makes it another, to try things out. */
const EVENTS = Number(process.env.BENCH_ARCHIVE_EVENTS ?? 5_000_000);
const EVENTS_BESIDE = EVENTS * 0.4;
/** Events a second that come in meanwhile. */
const BESIDE = 5_000;
const WARM_DAYS = 275;
const HOT_DAYS = 90;
const PER_DAY = 1_000;

/** Where the benches' days are counted from, also when midnight passes meanwhile. */
export const today = Math.floor(Date.now() / DAY) * DAY;
export const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10);
/** What leaves the database. */
export const OLD = { before: dayOf(today - HOT_DAYS * DAY) };

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
     FROM (SELECT i, to_timestamp($1::float8 / 1000) + interval '1 ms' * floor((i - 1) * ($2::float8 / $6::float8)) AS at FROM generate_series(1, $6::int) AS i) AS g,
       (SELECT array_agg(id ORDER BY customer_id) AS ids FROM tenants) AS t`,
    [from, days * DAY, place?.shard, place?.next, dayOf(from), days * perDay],
  );
  await client.query('ANALYZE events');
  client.release();
}

interface Run {
  status: string;
  error: string | null;
  result: { rows: number; damaged?: string[] } | null;
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
  const run = await runJob(server, '/api/v1/archives/run', OLD, meanwhile);
  if (run.result?.rows !== rows) throw new Error(`archived ${run.result?.rows}, expected ${rows}`);
  return secondsOf(run);
}

/** A fresh server and a pool of its database, for a while. */
export async function withServer(
  name: string,
  env: Record<string, string>,
  task: (server: BenchServer, pool: Pool) => Promise<void>,
): Promise<void> {
  // Nothing leaves by schedule, whatever the time of day.
  const server = await fresh(name, { ...env, ARCHIVE_HOT_DAYS: '3650' });
  const { pool, close } = await openEmbeddedPostgresPool(`${SCRATCH}${name}`);
  await task(server, pool);
  await close();
  await server.stop();
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

/** Rows/s of `COPY … TO` a file of the same rows, the faster of two. */
async function copyRate(pool: Pool, day: number): Promise<number> {
  const path = '/tmp/tidemark-bench.copy';
  const rates: number[] = [];
  for (let i = 0; i < 2; i++) {
    const began = performance.now();
    const { rowCount } = await pool.query(
      `COPY (SELECT * FROM events WHERE "timestamp" >= '${dayOf(day)}Z' AND "timestamp" < '${dayOf(day + DAY)}Z') TO '${path}'`,
    );
    rates.push((rowCount ?? 0) / ((performance.now() - began) / 1000));
  }
  rmSync(path, { force: true });
  return Math.max(...rates);
}

/** As fast as it goes, on all processors. */
export const archive = (): Promise<void> =>
  withServer('archive', { ARCHIVE_DUTY_PERCENT: '100', ARCHIVE_THREADS: '2' }, async (server, pool) => {
    const big = today - 120 * DAY;
    await fill(pool, big, 1, EVENTS);
    const { rows: sizes } = await pool.query<{ bytes: number }>(
      'SELECT pg_total_relation_size($1::regclass)::float8 AS bytes',
      [`events_${dayOf(big).replaceAll('-', '')}`],
    );
    const hot = (sizes[0]?.bytes ?? 0) / EVENTS;
    const copied = await copyRate(pool, big);
    let peak = 0;
    const before = server.rss();
    const seconds = await archiveRun(server, EVENTS, () => {
      peak = Math.max(peak, server.rss());
    });
    const { data } = await ask<Listed>(server, '/api/v1/archives');
    const { rows: left } = await pool.query<{ n: number }>('SELECT count(*)::float8 AS n FROM events');
    if (left[0]?.n !== 0 || data[0]?.rows !== EVENTS)
      throw new Error(`${left[0]?.n} rows left, ${data[0]?.rows} there`);
    const { result } = await runJob(server, '/api/v1/archives/verify', {});
    if (result?.damaged?.length !== 0) throw new Error(`damaged: ${result?.damaged?.join(', ')}`);
    const cold = (data[0]?.bytes ?? 0) / EVENTS;
    const own = EVENTS / seconds;
    add(
      `archive, a day of ${EVENTS / 1e6} million events`,
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
  });

/** The default duty, beside ingest. */
export const archiveBeside = (): Promise<void> =>
  withServer('archive-beside', {}, async (server, pool) => {
    await fill(pool, today - 120 * DAY, 1, EVENTS_BESIDE);
    const load = makeLoad(BESIDE * 60, 500, 'beside', () => Date.now());
    let isOver = false;
    const sending = postAll(server.url, KEY, load.bodies, { connections: 2, perSecond: BESIDE / 500 });
    await delay(2_000);
    const probing = probe(server, () => isOver);
    const seconds = await archiveRun(server, EVENTS_BESIDE);
    isOver = true;
    const waits = await probing;
    await sending;
    add(
      'freshness while a day is archived',
      `p50 ${quantileOf(waits, 0.5).toFixed(0)} ms, p99 ${quantileOf(waits, 0.99).toFixed(0)} ms of ${waits.length}`,
      `${BESIDE.toLocaleString('en')} events/s in, ${rate(EVENTS_BESIDE, seconds)} out`,
      'p99 < 1 s',
    );
  });

/** Every event that a search finds, page by page. @returns ms to the first page and to the end, and what was found */
async function searchAll(server: BenchServer, query: string): Promise<{ first: number; all: number; found: number }> {
  const began = performance.now();
  let [first, found] = [0, 0];
  let path: string | undefined = `/api/v1/events?limit=1000&${query}`;
  while (path !== undefined) {
    const answer: Response = await fetch(new URL(path, server.url), { headers: { authorization: `Bearer ${KEY}` } });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    found += ((await answer.json()) as unknown[]).length;
    first ||= performance.now() - began;
    path = /<([^>]+)>/.exec(answer.headers.get('link') ?? '')?.[1];
  }
  return { first, all: performance.now() - began, found };
}

/** A year's events of a tenant, and of one of its users: 90 days in the database, 275 in the archive. */
export const archiveQuery = (): Promise<void> =>
  withServer('archive-query', { ARCHIVE_DUTY_PERCENT: '100' }, async (server, pool) => {
    const from = today - (WARM_DAYS + HOT_DAYS) * DAY;
    await fill(pool, from, WARM_DAYS + HOT_DAYS, PER_DAY);
    const { rows } = await pool.query<{ whole: number; user: number }>(
      `SELECT count(*)::float8 AS whole, count(*) FILTER (WHERE e.user_id = 'user_7')::float8 AS user
       FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id WHERE t.customer_id = 'tenant_0007'`,
    );
    const seconds = await archiveRun(server, WARM_DAYS * PER_DAY);
    const query = `subject=tenant_0007&from=${new Date(from).toISOString()}`;
    for (const [who, more, expected] of [
      ["a tenant's", '', rows[0]?.whole],
      ["a user's", '&user_id=user_7', rows[0]?.user],
    ] as const) {
      const first = await searchAll(server, query + more);
      const again = await searchAll(server, query + more);
      for (const { found } of [first, again])
        if (found !== expected) throw new Error(`found ${found}, expected ${expected}`);
      add(
        `${who} events over ${HOT_DAYS} hot and ${WARM_DAYS} warm days`,
        `first page ${first.first.toFixed(0)} ms, all ${first.found.toLocaleString('en')} in ${first.all.toFixed(0)} ms`,
        `once more ${again.first.toFixed(0)} and ${again.all.toFixed(0)} ms; ${((seconds / WARM_DAYS) * 1000).toFixed(0)} ms to archive a small day`,
        'answers',
      );
    }
  });
