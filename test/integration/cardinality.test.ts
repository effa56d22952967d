import { afterAll, beforeAll, expect, test } from 'vitest';
import { runMeterQuery } from '../../query-api/meters/run-query.ts';
import { type Meter, VOID_TYPE } from '../../schemas/index.ts';
import { backfillJob, defineMeter, plainQuery } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';

const BASE = Date.UTC(2026, 5, 1, 10);
const LIMIT = 5;
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

const definition = { aggregation: 'SUM', eventType: '*', valueProperty: '$.used', groupBy: { path: '$.path' } };
/** Forty paths; the first three come all the time. */
const eventOf = (i: number) => {
  const path = i % 2 === 0 ? i % 3 : i % 40;
  return event(`k${i}`, {
    tenant: i % 7 === 0 ? 'small' : 'big',
    timestamp: BASE + i * 10_000,
    attributes: new Map([
      ['path', { kind: 'string', value: `/${i % 7 === 0 ? i % 3 : path}` }],
      ['used', { kind: 'long', value: i }],
    ]),
  });
};

async function groupsOf(meter: Meter, windowSize: 'HOUR' | undefined) {
  const query = plainQuery(meter, [BASE, BASE + 24 * 3_600_000], { windowSize, bySubject: true, groupBy: ['path'] });
  const { rows } = await runMeterQuery(database.pool, query);
  const sums = new Map<string, number>();
  for (const row of rows) sums.set(row.key.join(' '), (sums.get(row.key.join(' ')) ?? 0) + Number(row.value));
  return sums;
}

test('P3, P13: beyond the limit groups are counted as `other`: totals exact, known groups kept through restarts and backfills, the operator told', async () => {
  const { pool } = database;
  const meter = await defineMeter(pool, 'guarded', definition);
  const log = await openTestLog();
  const start = () =>
    startProcessors(pool, log, {
      now: () => BASE + 24 * 3_600_000,
      settings: { ...TEST_SETTINGS, batchEvents: 30, cacheRows: 10, groupsMax: LIMIT },
    });
  let running = await start();
  const voided = [11, 13, 200, 333];
  let total = 0;
  for (let i = 0; i < 600; i += 60) {
    await log.append([
      records(
        0,
        Array.from({ length: 60 }, (_, n) => eventOf(i + n)),
      ),
    ]);
    if (i === 300) {
      await committed(pool, 200);
      await running.stop();
      running = await start();
    }
  }
  await committed(pool, 600);
  const folded = running.metrics().groupsFolded;
  await log.append([
    records(
      0,
      voided.map((i) => ({ ...eventOf(i), type: VOID_TYPE, attributes: new Map() })),
    ),
  ]);
  await committed(pool, 600 + voided.length);
  // A second meter of the same meaning, whose past the job counts.
  const later = await defineMeter(pool, 'guarded_later', definition);
  const job = await backfillJob(pool, log, { groupsMax: LIMIT });
  await job.run({ id: '', params: {}, signal: new AbortController().signal, progress: async () => undefined });
  await running.stop();
  await log.dispose();
  expect(folded).toBeGreaterThan(0);
  const plain = new Map<string, number>();
  for (let i = 0; i < 600; i++) {
    if (voided.includes(i)) continue;
    const { tenant } = eventOf(i);
    plain.set(tenant, (plain.get(tenant) ?? 0) + i);
    total += i;
  }
  for (const one of [meter, later])
    for (const windowSize of ['HOUR', undefined] as const) {
      const sums = await groupsOf(one, windowSize);
      const big = [...sums].filter(([key]) => key.startsWith('big '));
      expect(big.length).toBe(LIMIT + 1);
      expect(big.map(([key]) => key)).toContain('big other');
      expect(big.reduce((sum, [, value]) => sum + value, 0)).toBe(plain.get('big'));
      expect([...sums.keys()].filter((key) => key.startsWith('small')).sort()).toEqual([
        'small /0',
        'small /1',
        'small /2',
      ]);
      expect([...sums.values()].reduce((sum, value) => sum + value, 0)).toBe(total);
    }
  const { rows } = await pool.query<{ customer_id: string; folded: number }>(
    `SELECT DISTINCT t.customer_id FROM meter_overflows AS o JOIN tenants AS t ON t.id = o.tenant_id WHERE o.meter_id = $1`,
    [meter.id],
  );
  expect(rows).toEqual([{ customer_id: 'big' }]);
}, 60_000);
