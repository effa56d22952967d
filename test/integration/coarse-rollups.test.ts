import type { ClientBase } from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BUILTIN_METERS } from '../../metering/index.ts';
import { foldCoarse } from '../../processors/index.ts';
import { mergeShards } from '../../processors/rollups/merge-shards.ts';
import { explainPieces } from '../../query-api/meters/plan.ts';
import { openMeterQuery, runMeterQuery } from '../../query-api/meters/run-query.ts';
import { withTransaction } from '../../sinks/index.ts';
import { meterOf, plainQuery } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { until } from '../support/server.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const START = Date.UTC(2026, 0, 1);
const BUILTIN = BUILTIN_METERS.map((meter) => meter.id);
let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
beforeEach(async () => {
  database = await createTestDatabase();
  log = await openTestLog(2);
});
afterEach(async () => {
  await log.dispose();
  await database.drop();
});

/** The clock stands: stale rows are looked for once, when a partition is idle first, and what is to be merged at the start. */
const start = (refoldMs = HOUR) =>
  startProcessors(database.pool, log, { now: () => START + 9 * DAY, settings: { ...TEST_SETTINGS, refoldMs } });
let sent = 0;
const send = async (partition: number, ...times: readonly number[]) => {
  await log.append([
    records(
      partition,
      times.map((timestamp) => event(`k${sent++}`, { tenant: `t${partition}`, timestamp })),
    ),
  ]);
};
const coarseUntil = (at: number) =>
  until(async () => {
    const { rows } = await database.pool.query(
      'SELECT FROM log_offsets WHERE coarse_until < folded_until OR coarse_until < $1',
      [new Date(at)],
    );
    return rows.length === 0 ? true : undefined;
  });
const listed = async () => {
  const { rows } = await database.pool.query<{ hour: Date }>('SELECT hour FROM unmerged_hours ORDER BY hour');
  return rows.map(({ hour }) => hour.getTime());
};
const tokens = async (windowSize: 'DAY' | 'HOUR', from = START, to = START + 2 * DAY) =>
  plainQuery(await meterOf(database.pool, 'tokens'), [from, to], { windowSize });

test('P3: a day whose last hour passes without events has its row by day', async () => {
  sent = 0;
  const running = await start();
  await send(0, START + 10 * HOUR);
  // Folded up to 23:00; the hour that is left of the day stays empty.
  await send(0, START + DAY + 5 * MINUTE);
  await send(1, START + 9 * DAY);
  await committed(database.pool, sent);
  await coarseUntil(START + 23 * HOUR);
  await send(0, START + 3 * DAY);
  await committed(database.pool, sent);
  await coarseUntil(START + 2 * DAY);
  await running.stop();
  const { rows } = await runMeterQuery(database.pool, await tokens('DAY'));
  expect(rows.map((row) => row.value)).toEqual(['10', '10']);
});

/** A day of both partitions, of which nothing is merged. @returns the shard of the first */
async function twoDays(): Promise<number> {
  sent = 0;
  const running = await start();
  for (const partition of [0, 1]) await send(partition, START + HOUR, START + 2 * HOUR, START + DAY + 3 * HOUR);
  await committed(database.pool, sent);
  await coarseUntil(START + DAY);
  await running.stop();
  const { rows } = await database.pool.query<{ shard: number }>('SELECT shard FROM log_offsets WHERE partition = 0');
  return rows[0]?.shard ?? 0;
}
/** What a late event of 1,000 tokens does to its hour. */
async function changeHour(client: ClientBase, shard: number): Promise<void> {
  const { rowCount } = await client.query(
    'UPDATE rollups_hour SET sum = sum + 1000 WHERE shard = $1 AND bucket = $2 AND meter_id = (SELECT min(meter_id) FROM rollups_hour WHERE sum IS NOT NULL)',
    [shard, new Date(stale)],
  );
  expect(rowCount).toBe(1);
  await client.query('INSERT INTO stale_hours VALUES ($1, $2)', [shard, new Date(stale)]);
}
const stale = START + HOUR;
const day = { day: START, hours: new Set([stale]), wholeDay: true, again: true };
const plan = async (windowSize: 'DAY' | 'HOUR', to = START + DAY) => {
  const answer = await openMeterQuery(database.pool, await tokens(windowSize, START, to));
  await answer.close();
  return explainPieces(answer.pieces).map(({ rollup, from, to, shards }) => [
    rollup,
    Date.parse(from),
    Date.parse(to),
    shards,
  ]);
};
const total = async () => (await runMeterQuery(database.pool, await tokens('DAY', START, START + DAY))).rows[0]?.value;

test.each(['before the list is locked', 'while it waits for the lock'])(
  'P3: what a partition makes again while hours are added up over all of them is added up once more: %s',
  async (moment) => {
    const { pool } = database;
    const shard = await twoDays();
    expect(await listed()).toContain(stale);
    expect(await total()).toBe('40');
    const client = await pool.connect();
    const commit = async () => {
      await client.query('COMMIT');
      client.release();
    };
    await client.query('BEGIN');
    const merging = mergeShards(pool, BUILTIN, async () => {
      await changeHour(client, shard);
      await foldCoarse(client, shard, day, BUILTIN_METERS);
      if (moment === 'before the list is locked') await commit();
    });
    if (moment !== 'before the list is locked') {
      await until(async () => {
        const { rows } = await pool.query(
          `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`,
        );
        return rows.length > 0 ? true : undefined;
      });
      await commit();
    }
    expect(await merging).toBe(true);
    expect(await listed()).toContain(stale);
    expect(await total()).toBe('1040');
    while (await mergeShards(pool, BUILTIN));
    expect(await listed()).toEqual([]);
    expect(await total()).toBe('1040');
    expect(await plan('DAY')).toEqual([['days of all tenants, partitions added up', START, START + DAY, 'all']]);
  },
);

test('P3: one stale hour, or a partition that lags, is read by partition, beside the rest', async () => {
  const { pool } = database;
  const shard = await twoDays();
  while (await mergeShards(pool, BUILTIN));
  await withTransaction(pool, (tx) => changeHour(tx, shard));
  const { rows } = await pool.query<{ shard: number }>('SELECT shard FROM log_offsets ORDER BY shard');
  const other = rows.map((row) => row.shard).filter((one) => one !== shard);
  const hours = 'hours of all tenants, partitions added up';
  const pieces = await plan('HOUR');
  expect(pieces).toHaveLength(4);
  expect(pieces).toEqual(
    expect.arrayContaining([
      [hours, START, stale, 'all'],
      [hours, stale + HOUR, START + DAY, 'all'],
      ['hours by tenant and group', stale, stale + HOUR, [shard]],
      ['hours of all tenants', stale, stale + HOUR, other],
    ]),
  );
  expect(await total()).toBe('1040');
  await withTransaction(pool, (tx) => foldCoarse(tx, shard, day, BUILTIN_METERS));
  // Made again, but not added up yet.
  expect((await plan('HOUR')).slice(2)).toEqual([['hours of all tenants', stale, stale + HOUR, 'all']]);
  while (await mergeShards(pool, BUILTIN));
  expect(await plan('HOUR')).toEqual([[hours, START, START + DAY, 'all']]);
  // One partition goes on: of what the other has not folded, its minutes are read.
  const running = await start();
  await send(1, START + 3 * DAY);
  await committed(pool, sent);
  await until(async () => ((await listed()).length > 0 ? true : undefined));
  await running.stop();
  while (await mergeShards(pool, BUILTIN));
  expect(await plan('HOUR', START + 2 * DAY)).toEqual([
    [hours, START, START + 2 * DAY, 'all'],
    ['minutes by tenant and group', START + DAY + 2 * HOUR, START + 2 * DAY, [shard]],
  ]);
  const { rows: answer } = await runMeterQuery(pool, await tokens('DAY'));
  expect(answer.map((row) => row.value)).toEqual(['1040', '20']);
});

test('P3: at once, beside the owners, where nothing is to wait', async () => {
  sent = 0;
  const running = await start(0);
  for (const partition of [0, 1]) await send(partition, START + HOUR, START + DAY + 3 * HOUR);
  await committed(database.pool, sent);
  await coarseUntil(START + DAY);
  await until(async () => ((await listed()).length === 0 ? true : undefined));
  expect(await plan('DAY')).toEqual([['days of all tenants, partitions added up', START, START + DAY, 'all']]);
  await send(1, START + HOUR);
  await committed(database.pool, sent);
  expect(await total()).toBe('30');
  await until(async () =>
    (await plan('DAY'))[0]?.[0] === 'days of all tenants, partitions added up' ? true : undefined,
  );
  expect(await total()).toBe('30');
  await running.stop();
});
