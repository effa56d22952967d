import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CLOSE_STEPS, checksumOf, closePeriods, createEndpoint, grantCredit, readLines } from '../../billing/index.ts';
import { billingOn, makePlan, subscribe } from '../support/billing.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors } from '../support/processors.ts';

const CHILD = fileURLToPath(new URL('../support/close-child.ts', import.meta.url));
const NOW = '2026-04-02T00:00:00Z';
const TENANTS = ['a', 'b', 'c', 'd', 'e'];
let crashed: TestDatabase;
let calm: TestDatabase;

/** Five tenants, three periods each, usage and credit. */
async function fill(database: TestDatabase): Promise<void> {
  const { pool } = database;
  await makePlan(pool, 'p', [
    { model: 'flat', amount: '10' },
    { meter: 'tokens', model: 'per_unit', unit_amount: '0.01' },
  ]);
  await createEndpoint(pool, { url: 'http://127.0.0.1:9/none', events: [] });
  const log = await openTestLog();
  const processors = await startProcessors(pool, log);
  const events = TENANTS.flatMap((tenant, t) =>
    [1, 2, 3].map((month) =>
      event(`${tenant}${month}`, {
        tenant,
        timestamp: Date.UTC(2026, month - 1, 10),
        attributes: new Map([['tokens_consumed', { kind: 'long', value: (t + 1) * month * 10 }]]),
      }),
    ),
  );
  await log.append([records(0, events)]);
  await committed(pool, events.length);
  await processors.stop();
  await log.dispose();
  for (const tenant of TENANTS) {
    const { tenantId } = await subscribe(pool, tenant, 'p', '2026-01-01T00:00:00Z');
    await grantCredit(pool, { tenantId, currency: 'USD', amount: '15', note: null, expiresAt: null });
  }
}

const run = (step: string, nth: number): Promise<NodeJS.Signals | number | null> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CHILD, crashed.url, NOW, step, String(nth)], { stdio: 'inherit' });
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(signal ?? code));
  });

/** What was closed, without what differs between two databases. */
async function outcome({ pool }: TestDatabase) {
  const { rows } = await pool.query<{ number: number; tenant: string; period: string; total: string; due: string }>(
    `SELECT s.number::int AS number, t.customer_id AS tenant, s.period_from::date::text AS period, s.total::text AS total, s.amount_due::text AS due
     FROM statements AS s JOIN tenants AS t ON t.id = s.tenant_id ORDER BY s.number`,
  );
  const { rows: burns } = await pool.query<{ burnt: string }>('SELECT sum(amount)::text AS burnt FROM credit_burns');
  const { rows: told } = await pool.query<{ n: number }>('SELECT count(*)::int AS n FROM webhook_deliveries');
  return {
    numbers: rows.map((row) => row.number),
    periods: rows.map(({ tenant, period, total, due }) => `${tenant} ${period} ${total} ${due}`).sort(),
    burnt: burns[0]?.burnt,
    told: told[0]?.n,
  };
}

beforeAll(async () => {
  [crashed, calm] = await Promise.all([createTestDatabase(), createTestDatabase()]);
  await fill(crashed);
  await fill(calm);
});
afterAll(async () => {
  await crashed.drop();
  await calm.drop();
});

test('P8: killed at every step of the close, every period is closed once, without a gap, with the same totals', async () => {
  // The second time a step is reached, so that a batch was committed before.
  for (const [i, step] of CLOSE_STEPS.entries()) expect(await run(step, i % 2 === 0 ? 1 : 2)).toBe('SIGKILL');
  expect(await run('none', 1)).toBe(0);
  await closePeriods({ ...billingOn(calm.pool, () => Date.parse(NOW)), batch: 2 }, Date.parse(NOW));
  const found = await outcome(crashed);
  expect(found.numbers).toEqual(Array.from({ length: 15 }, (_, i) => i + 1));
  expect(found.told).toBe(15);
  expect(found).toEqual(await outcome(calm));
  const { rows } = await crashed.pool.query<{ number: number; head: string; checksum: string }>(
    'SELECT number::int AS number, head, checksum FROM statements',
  );
  for (const row of rows) {
    const lines: string[] = [];
    for await (const line of readLines(crashed.pool, row.number)) lines.push(line);
    expect(checksumOf(row.head, lines)).toBe(row.checksum);
  }
});

test('P8: two that close at once close every period once', async () => {
  const { pool } = crashed;
  const later = '2026-06-02T00:00:00Z';
  const deps = { ...billingOn(pool, () => Date.parse(later)), batch: 1 };
  const closing = async () => {
    // One of two snapshots may be too old for its lock (40001): the job is tried again, as here.
    for (;;)
      try {
        return await closePeriods(deps, Date.parse(later));
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === '40001')) throw error;
      }
  };
  await Promise.all([closing(), closing()]);
  const { rows } = await pool.query<{ n: number; gap: number }>(
    'SELECT count(*)::int AS n, (max(number) - count(*))::int AS gap FROM statements',
  );
  expect(rows[0]).toEqual({ n: 25, gap: 0 });
});
