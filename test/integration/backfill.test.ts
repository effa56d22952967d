import { afterEach, beforeEach, expect, test } from 'vitest';
import { runMeterQuery } from '../../query-api/meters/run-query.ts';
import {
  AGGREGATIONS,
  type AttributeValue,
  type Job,
  type Meter,
  type PlainEvent,
  VOID_TYPE,
} from '../../schemas/index.ts';
import type { EventLog } from '../../sinks/index.ts';
import { backfillJob, defineMeter, meterOf, plainQuery } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { until } from '../support/server.ts';

const BASE = Date.UTC(2026, 5, 1, 10);
const HOUR = 3_600_000;
const DAY_START = Date.UTC(2026, 5, 1);
const PARTITIONS = 2;
let database: TestDatabase;
let log: EventLog & { dispose(): Promise<void> };
beforeEach(async () => {
  database = await createTestDatabase();
  log = await openTestLog(PARTITIONS);
});
afterEach(async () => {
  await log.dispose();
  await database.drop();
});

/** Deterministic, with every kind of value: nested, dotted, text that is a number, missing. */
function eventOf(i: number): PlainEvent {
  const attributes = new Map<string, AttributeValue>([
    ['model', { kind: 'string', value: `m${i % 3}` }],
    ['usage.tokens', i % 5 === 0 ? { kind: 'decimal', value: `${i}.25` } : { kind: 'long', value: i % 70 }],
    ['delta', { kind: 'long', value: i % 2 === 0 ? 1 : -1 }],
    ['ok', { kind: 'boolean', value: i % 4 === 0 }],
    ['duration_ms', i % 11 === 0 ? { kind: 'string', value: '12.5' } : { kind: 'long', value: i }],
  ]);
  if (i % 7 === 0) attributes.delete('usage.tokens');
  const tokens = attributes.get('usage.tokens')?.value;
  return event(`k${i}`, {
    tenant: `t${i % 4}`,
    type: i % 3 === 0 ? 'chat' : 'call',
    timestamp: BASE + ((i * 7_919) % (5 * HOUR)),
    user_id: i % 6 === 0 ? null : `u${i % 9}`,
    attributes,
    data: tokens === undefined ? null : JSON.stringify({ usage: { tokens: 0 } }).replace('0', String(tokens)),
  });
}

const batchesOf = (events: readonly PlainEvent[]) =>
  [...Map.groupBy(events, (one) => Number(one.tenant.slice(1)) % PARTITIONS)].map(([partition, own]) =>
    records(partition, own),
  );

const definitions = AGGREGATIONS.map((aggregation, i) => ({
  eventType: i % 2 === 0 ? '*' : 'call',
  aggregation,
  ...(aggregation === 'COUNT'
    ? {}
    : {
        valueProperty: aggregation === 'UNIQUE_COUNT' ? '$.user_id' : i % 2 === 0 ? '$.usage.tokens' : '$.duration_ms',
      }),
  groupBy: i % 3 === 0 ? {} : { model: '$.model', ok: '$.ok' },
  filters: aggregation === 'MAX' ? [{ property: '$.usage.tokens', op: 'lt', value: 60 }] : [],
}));

async function answers(meter: Meter): Promise<unknown[]> {
  const all: unknown[] = [];
  const question = plainQuery(meter, [BASE + 17 * 60_000, BASE + 4 * HOUR + 23 * 60_000], {
    bySubject: true,
    groupBy: meter.groupBy,
  });
  for (const windowSize of ['MINUTE', 'HOUR', undefined] as const) {
    const { rows } = await runMeterQuery(database.pool, { ...question, windowSize });
    all.push(rows);
  }
  // Of all tenants and groups, days read the coarsest rows there are.
  const { rows } = await runMeterQuery(database.pool, {
    ...question,
    from: DAY_START,
    to: DAY_START + 24 * HOUR,
    windowSize: 'DAY',
    bySubject: false,
    groupBy: [],
  });
  return [...all, rows];
}

async function staleTwins(): Promise<unknown[]> {
  const { rows } = await database.pool.query(
    `SELECT FROM stale_hours JOIN log_offsets AS o USING (shard) WHERE o.topic = 'backfill'`,
  );
  return rows;
}

/** Runs the job until it says it is done, ending it after some progress again and again. */
async function runInterrupted(job: Job): Promise<Record<string, unknown>> {
  for (let i = 0; ; i++) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), i < 6 ? 15 * (i + 1) : 60_000);
    try {
      const result = await job.run({ id: '', params: {}, signal: stop.signal, progress: async () => undefined });
      if (result.waiting === undefined) return result;
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

test('P3: a meter that is defined while events flow counts the past and the present once each, however often its job is ended', async () => {
  const { pool } = database;
  const first = await Promise.all(definitions.map((one, i) => defineMeter(pool, `first_${i}`, one)));
  let now = BASE + 2 * HOUR;
  const start = () =>
    startProcessors(pool, log, { now: () => now, settings: { ...TEST_SETTINGS, batchEvents: 40, cacheRows: 200 } });
  let running = await start();
  const job = await backfillJob(pool, log, { waitMs: 20_000, rowsMax: 300 });
  let sent = 0;
  const send = async (count: number) => {
    for (const until = sent + count; sent < until; sent += 50)
      await log.append(batchesOf(Array.from({ length: 50 }, (_, i) => eventOf(sent + i))));
  };
  await send(1_000);
  await committed(pool, 800);
  const traffic = send(2_000);
  const later = await Promise.all(definitions.map((one, i) => defineMeter(pool, `later_${i}`, one)));
  await traffic;
  await running.stop();
  now = BASE + 8 * HOUR;
  running = await start();
  const more = send(1_000);
  expect(await runInterrupted(job)).toMatchObject({ removed: 0 });
  await more;
  await send(200);
  await committed(pool, sent);
  await running.stop();
  const { rows: cuts } = await pool.query<{ cut: number; finished: boolean }>(
    'SELECT cut::float8 AS cut, finished_at IS NOT NULL AS finished FROM meter_cuts WHERE meter_id = $1',
    [later[0]?.id],
  );
  expect(cuts.every(({ cut, finished }) => finished && cut > 0)).toBe(true);
  expect(await staleTwins()).toEqual([]);
  const { rows: twins } = await pool.query<{ days: number }>(
    `SELECT count(*)::int AS days FROM rollups_coarse JOIN log_offsets AS o USING (shard) WHERE o.topic = 'backfill' AND level >= 4 GROUP BY shard`,
  );
  expect(twins.map(({ days }) => days > 10)).toEqual([true, true]);
  const compare = async () => {
    for (const [i, meter] of first.entries())
      expect([meter.aggregation, await answers(later[i] ?? meter)]).toEqual([meter.aggregation, await answers(meter)]);
  };
  await compare();
  // What is voided after it was counted by the job leaves its coarse rows at once, and they are made again.
  running = await start();
  await log.append(batchesOf(Array.from({ length: 40 }, (_, i) => ({ ...eventOf(i), type: VOID_TYPE }))));
  await committed(pool, sent + 40);
  await running.stop();
  expect(await staleTwins()).not.toEqual([]);
  await compare();
  await runInterrupted(job);
  expect(await staleTwins()).toEqual([]);
  await compare();
}, 120_000);

test('P3: a changed meter answers by its old groups until the new ones know the past', async () => {
  const { pool } = database;
  const before = await defineMeter(pool, 'changing', definitions[1] ?? fail());
  const running = await startProcessors(pool, log, { now: () => BASE + 8 * HOUR });
  for (let i = 0; i < 500; i += 50) await log.append(batchesOf(Array.from({ length: 50 }, (_, n) => eventOf(i + n))));
  await committed(pool, 500);
  await pool.query(
    `INSERT INTO meter_versions (meter, state, definition)
     SELECT meter, 'next', jsonb_set(definition, '{groupBy}', '["model"]') FROM meter_versions WHERE id = $1`,
    [before.id],
  );
  expect((await meterOf(pool, 'changing')).id).toBe(before.id);
  await runInterrupted(await backfillJob(pool, log));
  const after = await meterOf(pool, 'changing');
  expect(after.id).not.toBe(before.id);
  expect(after.groupBy).toEqual(['model']);
  // The retired version is counted no more, and its rows go when that is certain.
  await until(async () => {
    await pool.query(`UPDATE meter_versions SET retired_at = now() - interval '1 hour' WHERE id = $1`, [before.id]);
    await runInterrupted(await backfillJob(pool, log));
    const { rows } = await pool.query<{ n: number }>(
      'SELECT count(*)::int AS n FROM rollups_minute WHERE meter_id = $1',
      [before.id],
    );
    return rows[0]?.n === 0 ? true : undefined;
  });
  const total = async (meter: Meter) => {
    const { rows } = await pool.query<{ n: string; c: string }>(
      'SELECT sum(sum)::text AS n, sum(count)::text AS c FROM rollups_minute WHERE meter_id = $1',
      [meter.id],
    );
    return rows[0];
  };
  const plain = Array.from({ length: 500 }, (_, i) => eventOf(i)).filter((one) => one.type === 'call');
  expect((await total(after))?.c).toBe(String(plain.length));
  await running.stop();
  // A purge of whose meter it is removes it, versions included.
  expect((await pool.query(`DELETE FROM meters WHERE slug = 'changing'`)).rowCount).toBe(1);
  expect((await pool.query('SELECT FROM meter_versions')).rowCount).toBe(0);
}, 60_000);

const fail = (): never => {
  throw new Error('no such definition');
};
