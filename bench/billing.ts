/** Billing: what closing a month of many customers takes, from rollups to statements in the database. */
import { execFileSync } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import type { Pool } from 'pg';
import { closePeriods, createPlan } from '../billing/index.ts';
import { BUILTIN_METERS } from '../metering/index.ts';
import { TIME_TABLES } from '../schemas/index.ts';
import { connect, migrate, NativeEngine, readMeterUsage, startEmbeddedPostgres } from '../sinks/index.ts';
import { add, SCRATCH } from './report.ts';

const SUBSCRIPTIONS = 10_000;
const CHARGES = 10;
const START = Date.UTC(2026, 5, 1);
const END = Date.UTC(2026, 6, 1);
const NOW = END + 86_400_000;
/** Groups of a tenant, and hours with usage: 10 × 30 rows each. */
const MODELS = 10;
const DAYS = 30;
const EACH = 100;

/** One flat fee, and nine prices for the usage of a model each. */
const charges = [
  { model: 'flat', amount: '49' },
  ...Array.from({ length: CHARGES - 1 }, (_, i) => ({
    meter: 'tokens',
    filters: { model: [`m${i}`] },
    model: 'graduated',
    tiers: [
      { up_to: '1000', unit_amount: '0.01' },
      { up_to: null, unit_amount: '0.005' },
    ],
  })),
];

/** 10,000 subscriptions of 10 charges: closed, checked against plain sums, with time and memory. */
export async function billing(): Promise<void> {
  const folder = `${SCRATCH}billing`;
  const server = await startEmbeddedPostgres(folder);
  try {
    // A process of its own: its memory is what closing takes, not what the bench took before.
    const text = execFileSync(process.execPath, [fileURLToPath(import.meta.url), server.url], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { seconds, peakMb, statements, lines, total } = JSON.parse(text);
    // 3,000 units: 1,000 × 0.01 + 2,000 × 0.005 = 20 each
    const expected = SUBSCRIPTIONS * (49 + (CHARGES - 1) * 20);
    if (statements !== SUBSCRIPTIONS || lines !== SUBSCRIPTIONS * CHARGES || Number(total) !== expected)
      throw new Error(`closed ${statements} statements, ${lines} lines, ${total} in all`);
    add(
      'billing',
      `${SUBSCRIPTIONS.toLocaleString('en')} subscriptions × ${CHARGES} charges closed in ${seconds.toFixed(1)} s (${Math.round(lines / seconds).toLocaleString('en')} lines/s), ${peakMb} MB at most`,
      '–',
      'minutes at most',
    );
  } finally {
    await server.stop();
  }
}

async function fill(pool: Pool): Promise<void> {
  const client = await pool.connect();
  const days = Array.from({ length: DAYS }, (_, i) => START + i * 86_400_000);
  await new NativeEngine().ensureChunks(client, TIME_TABLES.rollups_hour, days);
  await client.query(
    `INSERT INTO tenants (customer_id, name, tier, status) SELECT 'tenant_' || lpad(i::text, 5, '0'), 'bench', 'standard', 'ready' FROM generate_series(1, $1::int) AS i`,
    [SUBSCRIPTIONS],
  );
  await client.query(
    `INSERT INTO log_offsets (topic, partition, next, folded_until, watermark) VALUES ('events', 0, 1000, $1, $1)`,
    [new Date(END).toISOString()],
  );
  await client.query(
    `INSERT INTO rollup_groups (group_key, tenant_id, meter_id, values)
     SELECT md5(t.id::text || m)::uuid, t.id, 3, ARRAY['/e', 'm' || m] FROM tenants AS t, generate_series(0, $1::int - 1) AS m`,
    [MODELS],
  );
  await client.query(
    `INSERT INTO rollups_hour (bucket, meter_id, shard, tenant_id, group_key, count, sum, min, max)
     SELECT d, 3, (SELECT min(shard) FROM log_offsets), g.tenant_id, g.group_key, 1, $3, $3, $3
     FROM rollup_groups AS g, generate_series($1::timestamptz, $2::timestamptz - interval '1 day', interval '1 day') AS d`,
    [new Date(START).toISOString(), new Date(END).toISOString(), EACH],
  );
  await createPlan(client, async (slug) => BUILTIN_METERS.find((meter) => meter.slug === slug), {
    key: 'bench',
    name: 'Bench',
    currency: 'USD',
    interval: 'month',
    charges,
  });
  await client.query(
    `WITH made AS (
       INSERT INTO subscriptions (tenant_id, start_at, time_zone, periods, closed_until, next_close_at)
       SELECT id, $1, 'UTC', 'anniversary', $1, $2 FROM tenants RETURNING id)
     INSERT INTO subscription_phases (subscription_id, from_at, plan_key, plan_version) SELECT id, $1, 'bench', 1 FROM made`,
    [new Date(START).toISOString(), new Date(END).toISOString()],
  );
  await client.query('ANALYZE');
  client.release();
}

async function close(url: string): Promise<void> {
  const pool = connect(url, { max: 4, name: 'tidemark-bench' });
  await migrate(pool);
  await fill(pool);
  let peak = 0;
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, 20);
  const began = performance.now();
  const result = await closePeriods(
    {
      pool,
      now: () => NOW,
      findMeter: async (slug) => BUILTIN_METERS.find((meter) => meter.slug === slug),
      readUsage: readMeterUsage,
      // Every range is of whole hours: rollups answer all of it.
      async *readRawEvents() {},
      adjustWithinMs: 45 * 86_400_000,
    },
    NOW,
  );
  const seconds = (performance.now() - began) / 1000;
  clearInterval(watch);
  if (result.failed.length > 0) throw new Error(JSON.stringify(result.failed[0]));
  const { rows } = await pool.query<{ statements: number; lines: number; total: string }>(
    'SELECT count(*)::int AS statements, sum(line_count)::int AS lines, sum(total)::text AS total FROM statements',
  );
  process.stdout.write(JSON.stringify({ seconds, peakMb: Math.round(peak / 2 ** 20), ...rows[0] }));
  await pool.end();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await close(process.argv[2] ?? '');
