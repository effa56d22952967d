import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BUILTIN_METERS, LEVEL } from '../../metering/index.ts';
import { verifyRollups } from '../../processors/index.ts';
import { openMeterQuery, rowsIn } from '../../query-api/meters/run-query.ts';
import { openSnapshot } from '../../query-api/meters/snapshot.ts';
import { type AttributeValue, type Meter, VOID_TYPE } from '../../schemas/index.ts';
import { detectEngine } from '../../sinks/index.ts';
import { always } from '../support/archive.ts';
import { backfillJob, defineMeter, NO_ARCHIVE, plainQuery } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors } from '../support/processors.ts';
import { until } from '../support/server.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = Date.UTC(2026, 5, 1);
/** Two whole days, and some hours of a third. */
const END = START + 2 * DAY + 6 * HOUR;
const PARTITIONS = 3;
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

const sent = fc.record({
  // The partition of the third one is silent until it comes, maybe with days that the others have passed.
  tenant: fc.constantFrom('a', 'b', 'c'),
  minute: fc.nat((END - START) / 60_000 - 1),
  plan: fc.constantFrom('/x', '/y'),
  duration: fc.integer({ min: 1, max: 5_000 }),
});
const operation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('send' as const), all: fc.array(sent, { minLength: 1, maxLength: 30 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('void' as const), of: fc.nat(200) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('define' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('repair' as const), meter: fc.constantFrom(1, 2, 3), hour: fc.nat(47) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('settle' as const) }) },
);

/** What is asked of every meter: everybody, or by endpoint; hours, days, or all at once; whole days or cut hours. */
const QUESTIONS = [true, false].flatMap((byGroup) =>
  (['HOUR', 'DAY', undefined] as const).flatMap((windowSize) =>
    [
      [START, END],
      [START + 3 * HOUR, END - 90 * 60_000],
    ].map(([from = 0, to = 0]) => ({ byGroup, windowSize, from, to })),
  ),
);
type Question = (typeof QUESTIONS)[number];

const VALUE: { [aggregation: string]: string } = {
  COUNT: 'count(*)',
  SUM: 'sum(e.tokens_consumed)',
  MAX: 'max(e.tokens_consumed)',
  LATEST: '(array_agg(e.tokens_consumed ORDER BY e."timestamp" DESC, e.key DESC))[1]',
  PERCENTILE: '(array_agg(e.duration_ms ORDER BY e.duration_ms))[1 + floor(0.95 * (count(*) - 1))::int]',
};

const queryOf = (meter: Meter, { byGroup, windowSize, from, to }: Question) =>
  plainQuery(meter, [from, to], { windowSize, groupBy: byGroup ? ['endpoint'] : [] });

/** Every answer equals what the raw events of the same snapshot say. */
async function check(meters: readonly Meter[], questions: readonly Question[]): Promise<void> {
  const snapshot = await openSnapshot(database.pool);
  try {
    for (const meter of meters)
      for (const question of questions) {
        const { byGroup, windowSize, from, to } = question;
        const window =
          windowSize === undefined
            ? '$1::timestamptz'
            : `greatest(date_trunc('${windowSize}', e."timestamp"), $1::timestamptz)`;
        const due = await snapshot.all({
          text: `SELECT (extract(epoch FROM ${window}) * 1000)::int8, ${byGroup ? 'e.endpoint' : 'NULL'}, ${VALUE[meter.aggregation]}::float8
            FROM events AS e WHERE e."timestamp" >= $1::timestamptz AND e."timestamp" < $2::timestamptz AND e.type = 'api_call'
              AND NOT EXISTS (SELECT FROM withdrawals AS w WHERE w.shard = e.shard AND w.key = e.key)
            GROUP BY 1, 2 ORDER BY 1, 2`,
          values: [new Date(from).toISOString(), new Date(to).toISOString()],
        });
        const got = await rowsIn(snapshot, queryOf(meter, question));
        const shown = { meter: meter.slug, ...question };
        // Nothing at all is one window of nothing.
        const rows = got.filter((row) => due.length > 0 || row.value !== '0');
        expect({ ...shown, cells: rows.map((row) => [String(row.windowStart), row.key[0] ?? null]) }).toEqual({
          ...shown,
          cells: due.map(([window, group]) => [window, group]),
        });
        for (const [i, row] of rows.entries()) {
          const value = Number(due[i]?.[2]);
          const error = meter.aggregation === 'PERCENTILE' ? value * 0.0101 : 0;
          expect({ ...shown, row, value, near: Math.abs(Number(row.value) - value) <= error }).toMatchObject({
            near: true,
          });
        }
      }
  } finally {
    await snapshot.close();
  }
}

/** Coarse rows are made as far as hours are folded, and added up over all shards. */
const settled = () =>
  until(async () => {
    const { rows } = await database.pool.query(
      `SELECT FROM unmerged_hours UNION ALL SELECT FROM log_offsets WHERE coarse_until < folded_until
       UNION ALL SELECT FROM stale_hours AS h JOIN log_offsets AS o USING (shard) WHERE h.hour < o.coarse_until AND o.topic <> 'backfill'`,
    );
    return rows.length === 0 ? true : undefined;
  }, 15_000);

test('P3: rows added up over all partitions equal a recomputation at every commit: late events, voids, silent partitions, backfills, repairs, restarts', async () => {
  const { pool } = database;
  const builtin = BUILTIN_METERS.filter((meter) => meter.id <= 3);
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 3, maxLength: 12 }), async (operations) => {
      await pool.query(
        'TRUNCATE log_offsets, events, rollup_groups, rollups_minute, rollups_hour, rollups_coarse, stale_hours, unmerged_hours, members_minute, members_hour, dedupe_blocks, dedupe_runs, dedupe_pages, accounting, dead_letters, withdrawals, meters, meter_versions, meter_cuts, meter_gaps RESTART IDENTITY',
      );
      const log = await openTestLog(PARTITIONS);
      const start = () => startProcessors(pool, log, { now: () => END + DAY });
      let running = await start();
      let appended = 0;
      let keys = 0;
      const owners: string[] = [];
      const defined: Meter[] = [];
      const append = async (tenant: string, more: Parameters<typeof event>[1], key = `k${keys++}`) => {
        owners[keys - 1] ??= tenant;
        await log.append([records(tenant.charCodeAt(0) - 97, [event(key, { tenant, ...more })])]);
        appended++;
      };
      const backfill = async () =>
        (await backfillJob(pool, log)).run({
          id: '',
          params: {},
          signal: new AbortController().signal,
          progress: async () => undefined,
        });
      // Asks all the while, but for the moments in which rows are broken by hand.
      let asking: { stop: boolean; done: Promise<void> } | undefined;
      const ask = () => {
        const state = { stop: false, done: Promise.resolve() };
        state.done = (async () => {
          for (let i = 0; !state.stop; i++)
            await check(
              builtin,
              [QUESTIONS[i % QUESTIONS.length] ?? QUESTIONS[0]].flatMap((one) => one ?? []),
            );
        })();
        state.done.catch(() => undefined);
        return state;
      };
      const hush = async () => {
        if (asking !== undefined) asking.stop = true;
        await asking?.done;
        asking = undefined;
      };
      try {
        asking = ask();
        // So that hours pass in two of the partitions.
        for (const tenant of ['a', 'b'])
          await append(tenant, eventAt({ minute: (END - START) / 60_000 + 90, plan: '/x', duration: 1 }));
        for (const one of operations) {
          if (one.kind === 'send') for (const each of one.all) await append(each.tenant, eventAt(each));
          else if (one.kind === 'void') {
            const target = one.of % keys;
            await append(
              owners[target] ?? 'a',
              { type: VOID_TYPE, timestamp: END, attributes: new Map([['tidemark.actor', text('somebody')]]) },
              `k${target}`,
            );
          } else if (one.kind === 'settle') {
            await committed(pool, appended);
            await settled();
          } else if (one.kind === 'define') {
            for (const aggregation of ['MAX', 'LATEST'] as const)
              defined.push(
                await defineMeter(pool, `d_${defined.length}`, {
                  eventType: 'api_call',
                  aggregation,
                  valueProperty: '$.tokens_consumed',
                  groupBy: { endpoint: '$.endpoint' },
                }),
              );
            await backfill();
          } else if (one.kind === 'restart') {
            await running.stop();
            running = await start();
          } else {
            await committed(pool, appended);
            await settled();
            await hush();
            await pool.query(
              `UPDATE rollups_hour SET count = count + 1, sum = sum + 7 WHERE meter_id = $1 AND bucket = $2`,
              [one.meter, new Date(START + one.hour * HOUR)],
            );
            await verifyRollups(
              { pool, engine: await detectEngine(pool), archive: NO_ARCHIVE, meters: BUILTIN_METERS, rowsMax: 10_000 },
              { from: START, to: START + 3 * DAY, repair: { by: 'somebody', run: 'r' } },
              always(),
            );
            asking = ask();
          }
        }
        await committed(pool, appended);
        // Voids of what a backfill counted leave work for the next one.
        await backfill();
        await settled();
        await hush();
        const meters = [...builtin, ...defined];
        await check(meters, QUESTIONS);
        for (const meter of meters) {
          const answer = await openMeterQuery(
            pool,
            queryOf(meter, { byGroup: true, windowSize: 'HOUR', from: START, to: START + 2 * DAY }),
          );
          await answer.close();
          const merged = answer.pieces.filter(({ source }) => typeof source === 'number' && source & LEVEL.merged);
          expect(merged).toMatchObject([{ from: START, to: START + 2 * DAY }]);
        }
      } finally {
        await hush();
        await running.stop();
        await log.dispose();
      }
    }),
    { numRuns: Number(process.env.RUNS ?? 8), timeout: 60_000, endOnFailure: true },
  );
}, 300_000);

const text = (value: string): AttributeValue => ({ kind: 'string', value });

function eventAt({ minute, plan, duration }: { minute: number; plan: string; duration: number }) {
  return {
    timestamp: START + minute * 60_000 + (duration % 60_000),
    attributes: new Map<string, AttributeValue>([
      ['endpoint', text(plan)],
      ['duration_ms', { kind: 'long', value: duration }],
      ['tokens_consumed', { kind: 'long', value: duration % 97 }],
    ]),
  };
}
