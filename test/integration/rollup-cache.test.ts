/** Rollup rows that leave memory. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PlainEvent } from '../../schemas/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';

const BASE = Date.UTC(2026, 5, 1, 20, 45);
const MINUTES = 100;
const PER_MINUTE = 8;
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

/** Every fourth one is late, by up to an hour. */
function eventOf(i: number): PlainEvent {
  const minute = Math.floor(i / PER_MINUTE);
  const late = i % 4 === 0 ? (i * 7) % 60 : 0;
  return event(`k${i}`, {
    timestamp: BASE + Math.max(0, minute - late) * 60_000 + (i % 60) * 1_000,
    attributes: new Map([
      ['endpoint', { kind: 'string', value: `/${i % 5}` }],
      ['duration_ms', { kind: 'long', value: i % 100 }],
      ['tokens_consumed', { kind: 'long', value: i }],
    ]),
  });
}

test('P3, P13: the oldest minutes leave memory, the latest stay: what comes late is added to what is stored, and no batch fails', async () => {
  const { pool } = database;
  const log = await openTestLog();
  const running = await startProcessors(pool, log, {
    now: () => BASE + 24 * 3_600_000,
    settings: { ...TEST_SETTINGS, batchEvents: 50, cacheRows: 160 },
  });
  const all = Array.from({ length: MINUTES * PER_MINUTE }, (_, i) => eventOf(i));
  for (let at = 0; at < all.length; at += 100) await log.append([records(0, all.slice(at, at + 100))]);
  await committed(pool, all.length);
  await running.stop();
  await log.dispose();
  expect(running.metrics().failures).toBe(0);
  const by = (unit: string, from: string, sum: string, where: string) => `
    SELECT (extract(epoch FROM date_trunc('${unit}', ${from})) * 1000)::float8 AS at, ${sum}::int AS sum
    FROM ${where} GROUP BY 1 ORDER BY 1`;
  for (const [unit, table] of [
    ['minute', 'rollups_minute'],
    ['hour', 'rollups_hour'],
  ] as const) {
    const raw = await pool.query(by(unit, '"timestamp"', 'sum(tokens_consumed)', 'events'));
    const stored = await pool.query(by(unit, 'bucket', 'sum(sum)', `${table} WHERE meter_id = 3`));
    // Hours that are not over have no rows yet.
    expect(stored.rows.length).toBeGreaterThanOrEqual(2);
    expect(stored.rows).toEqual(raw.rows.slice(0, stored.rows.length));
    if (unit === 'minute') expect(stored.rows.length).toBe(raw.rows.length);
  }
});
