import { afterAll, beforeAll, expect, test } from 'vitest';
import { BUILTIN_METERS } from '../../metering/index.ts';
import type { MeterQuery } from '../../query-api/meters/meter-query.ts';
import { openMeterQuery, rowsIn, runMeterQuery } from '../../query-api/meters/run-query.ts';
import { openSnapshot } from '../../query-api/meters/snapshot.ts';
import { TIME_TABLES } from '../../schemas/index.ts';
import { detectEngine } from '../../sinks/index.ts';
import { plainQuery } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = Date.UTC(2026, 4, 1);
const TENANTS = 1_000;
let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
  const { pool } = database;
  const client = await pool.connect();
  const engine = await detectEngine(pool);
  await engine.ensureChunks(client, TIME_TABLES.rollups_hour, [START]);
  await engine.ensureChunks(client, TIME_TABLES.rollups_minute, [START]);
  client.release();
  await pool.query(`INSERT INTO log_offsets (topic, partition, folded_until) VALUES ('t', 0, $1)`, [
    new Date(START + DAY),
  ]);
  await pool.query(
    `INSERT INTO tenants (customer_id, name, tier, status) SELECT 't' || lpad(i::text, 5, '0'), '', 'discovered', 'discovered' FROM generate_series(1, $1::int) AS i`,
    [TENANTS],
  );
  await pool.query(
    `INSERT INTO rollups_hour (bucket, meter_id, shard, tenant_id, group_key, count, sum)
     SELECT $1::timestamptz + h * interval '1 hour', 3, 1, t.id, t.id, 1, h FROM tenants AS t, generate_series(0, 9) AS h`,
    [new Date(START)],
  );
});
afterAll(() => database.drop());

const tokens = BUILTIN_METERS.find((meter) => meter.slug === 'tokens');
const query = (more: Partial<MeterQuery> = {}): MeterQuery => {
  if (tokens === undefined) throw new Error('no meter');
  return plainQuery(tokens, [START, START + DAY], { windowSize: 'HOUR', bySubject: true, ...more });
};

test('P13: an answer of any size comes in small chunks, from one snapshot', async () => {
  const answer = await openMeterQuery(database.pool, query());
  let rows = 0;
  let most = 0;
  for await (const chunk of answer.rows) {
    // What is committed meanwhile belongs to the next answer.
    if (rows === 0) await database.pool.query('UPDATE rollups_hour SET sum = sum + 1000');
    rows += chunk.length;
    most = Math.max(most, chunk.length);
    expect(chunk.every((row) => Number(row.value) < 10)).toBe(true);
  }
  expect(rows).toBe(TENANTS * 10);
  expect(most).toBeLessThanOrEqual(2_000);
  await database.pool.query('UPDATE rollups_hour SET sum = sum - 1000');
});

test('an answer that nobody reads on gives its connection back', async () => {
  for (let i = 0; i < 15; i++) {
    const answer = await openMeterQuery(database.pool, query());
    await answer.rows.next();
    await answer.rows.return(undefined);
  }
  expect((await runMeterQuery(database.pool, query({ bySubject: false }))).rows).toHaveLength(10);
});

test('a reader whose connection is ended fails alone', async () => {
  const answer = await openMeterQuery(database.pool, query());
  await answer.rows.next();
  // As PostgreSQL does with a reader that takes nothing for a minute.
  await database.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'FETCH%'`,
  );
  await expect(
    (async () => {
      for await (const chunk of answer.rows) expect(chunk.length).toBeGreaterThan(0);
    })(),
  ).rejects.toThrow();
  expect((await runMeterQuery(database.pool, query({ bySubject: false }))).rows).toHaveLength(10);
});

test('P3: where minutes are gone, finer windows are refused, whole hours are answered', async () => {
  await database.pool.query('INSERT INTO archived_minutes (day) VALUES ($1)', [new Date(START)]);
  // A late event makes a minute again, which is not all of its hour.
  await database.pool.query(
    `INSERT INTO rollups_minute (bucket, meter_id, shard, tenant_id, group_key, count, sum)
     SELECT bucket + interval '40 minutes', meter_id, shard, tenant_id, group_key, 1, 1 FROM rollups_hour ORDER BY bucket LIMIT 1`,
  );
  await expect(runMeterQuery(database.pool, query({ windowSize: 'MINUTE' }))).rejects.toMatchObject({
    code: 'window_too_fine',
  });
  const half = { from: START + HOUR / 2, windowSize: undefined };
  await expect(runMeterQuery(database.pool, query(half))).rejects.toMatchObject({ code: 'window_too_fine' });
  const whole = await runMeterQuery(
    database.pool,
    query({ bySubject: false, windowSize: 'DAY', from: undefined, to: undefined }),
  );
  expect(whole).toMatchObject({ from: START, to: START + 10 * HOUR, rows: [{ value: String(45 * TENANTS) }] });
});

test('several questions with a limit are asked of one snapshot', async () => {
  const snapshot = await openSnapshot(database.pool);
  for (let i = 0; i < 2; i++)
    expect(await rowsIn(snapshot, query({ windowSize: undefined, byValue: 'desc', limit: 20 }))).toHaveLength(20);
  await snapshot.close();
});
