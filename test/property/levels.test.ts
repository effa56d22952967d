import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { WindowSize } from '../../metering/index.ts';
import { runMeterQuery } from '../../query-api/meters/run-query.ts';
import type { Meter } from '../../schemas/index.ts';
import { defineMeter, plainQuery } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { aggregate } from '../support/recompute.ts';

const BASE = Date.UTC(2026, 5, 1, 10);
const HOUR = 3_600_000;
let database: TestDatabase;
const meters = new Map<string, Meter>();
beforeAll(async () => {
  database = await createTestDatabase();
  for (const aggregation of ['PEAK', 'TIME_WEIGHTED_AVG'])
    for (const property of ['seats', 'delta'])
      meters.set(
        `${aggregation} ${property}`,
        await defineMeter(database.pool, `${aggregation.toLowerCase()}_${property}`, {
          eventType: 'level',
          aggregation,
          valueProperty: `$.${property}`,
          groupBy: { plan: '$.plan' },
        }),
      );
});
afterAll(() => database.drop());

interface Point {
  tenant: string;
  plan: string;
  at: number;
  value: string;
}
const point = fc.record({
  tenant: fc.constantFrom('a', 'b'),
  plan: fc.constantFrom('x', 'y'),
  // Few distinct moments, so that several events meet in one.
  at: fc.oneof(
    fc.nat(8).map((n) => BASE + n * 20 * 60_000),
    fc.nat(4 * HOUR).map((n) => BASE - HOUR + n),
  ),
  value: fc.oneof(fc.integer({ min: -3, max: 9 }).map(String), fc.constantFrom('0.1', '2.25', '12345678901234567.5')),
});

test('P3, P12: PEAK and TIME_WEIGHTED_AVG of gauges and deltas equal a plain recomputation, in any order, folded or not', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(point, { minLength: 1, maxLength: 40 }),
      fc.boolean(),
      fc.constantFrom<WindowSize | undefined>('HOUR', undefined),
      fc.constantFrom<'total' | 'subject' | 'plan'>('total', 'subject', 'plan'),
      async (points, folded, windowSize, by) => {
        const { pool } = database;
        await pool.query(
          'TRUNCATE log_offsets, events, rollup_groups, rollups_minute, rollups_hour, dedupe_blocks, accounting, meter_cuts RESTART IDENTITY',
        );
        const log = await openTestLog();
        const running = await startProcessors(pool, log, {
          now: () => (folded ? BASE + 6 * HOUR : BASE),
          settings: { ...TEST_SETTINGS, batchEvents: 10 },
        });
        await log.append([
          records(
            0,
            points.map((one, i) =>
              event(`k${i}`, {
                tenant: one.tenant,
                type: 'level',
                timestamp: one.at,
                attributes: new Map([
                  ['plan', { kind: 'string', value: one.plan }],
                  ['seats', { kind: 'decimal', value: one.value }],
                  ['delta', { kind: 'decimal', value: one.value }],
                ]),
              }),
            ),
          ),
        ]);
        await committed(pool, points.length);
        await running.stop();
        await log.dispose();
        const from = BASE - 30 * 60_000;
        const to = BASE + 2 * HOUR + 45 * 60_000;
        for (const gauge of [true, false])
          for (const aggregation of ['PEAK', 'TIME_WEIGHTED_AVG'] as const) {
            const meter = meters.get(`${aggregation} ${gauge ? 'seats' : 'delta'}`);
            if (meter === undefined) throw new Error('no meter');
            const groups = { bySubject: by === 'subject', groupBy: by === 'plan' ? ['plan'] : [] };
            const { rows } = await runMeterQuery(pool, plainQuery(meter, [from, to], { windowSize, ...groups }));
            const got = rows.map((row) => [row.windowStart, row.key[0] ?? '', row.value]);
            expect({ gauge, aggregation, rows: got.sort() }).toEqual({
              gauge,
              aggregation,
              rows: expected(points, { gauge, aggregation, by, from, to, windowSize }).sort(),
            });
          }
      },
    ),
    {
      numRuns: 25,
      timeout: 30_000,
      endOnFailure: true,
      // A change by nothing before the range is nothing that happened in it.
      examples: [
        [
          [
            { tenant: 'a', plan: 'y', at: BASE - HOUR + 19, value: '0' },
            { tenant: 'b', plan: 'y', at: BASE, value: '2' },
          ],
          true,
          undefined,
          'subject',
        ],
      ],
    },
  );
}, 180_000);

function expected(
  points: readonly Point[],
  q: {
    gauge: boolean;
    aggregation: 'PEAK' | 'TIME_WEIGHTED_AVG';
    by: 'total' | 'subject' | 'plan';
    from: number;
    to: number;
    windowSize: WindowSize | undefined;
  },
): (string | number)[][] {
  const starts = [q.from];
  if (q.windowSize === 'HOUR')
    for (let at = Math.ceil(q.from / HOUR) * HOUR; at < q.to; at += HOUR) if (at > q.from) starts.push(at);
  const groups = Map.groupBy(points, (one) => (q.by === 'total' ? '' : q.by === 'subject' ? one.tenant : one.plan));
  return [...groups].flatMap(([group, own]) =>
    starts.flatMap((start, i) => {
      const facts = own.map((one, n) => ({
        series: `${one.tenant} ${one.plan}`,
        at: one.at,
        value: one.value,
        key: String(n),
      }));
      const value = aggregate(q.aggregation, q.gauge ? 'gauge' : 'delta', facts, start, starts[i + 1] ?? q.to);
      return value === undefined ? [] : [[start, group, value]];
    }),
  );
}
