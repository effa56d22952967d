import { Decimal } from 'decimal.js';
import fc from 'fast-check';
import { DateTime } from 'luxon';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { WindowSize } from '../../metering/index.ts';
import { significant } from '../../query-api/meters/decimals.ts';
import type { MeterQuery, MeterRow } from '../../query-api/meters/meter-query.ts';
import { runMeterQuery } from '../../query-api/meters/run-query.ts';
import type { Aggregation, Meter } from '../../schemas/index.ts';
import { defineMeter } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { until } from '../support/server.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Four days about the night in which clocks in Europe go forward, at the end of a month. */
const START = Date.UTC(2026, 2, 28);
const DAYS = 4;
const AGGREGATIONS = ['COUNT', 'SUM', 'MIN', 'MAX', 'AVG', 'UNIQUE_COUNT', 'LATEST', 'PERCENTILE'] as const;
const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 31);

interface Sent {
  tenant: string;
  at: number;
  plan: string | null;
  region: string;
  value: string;
  user: string;
}
const meters = new Map<Aggregation, Meter>();
const tenantIds = new Map<string, string>();
let database: TestDatabase;
let events: Sent[] = [];

const sample = fc.record({
  tenant: fc.constantFrom('a', 'b', 'c'),
  // Many in few hours, so that windows have several; a moment each, so that the latest is one.
  minute: fc.oneof(
    fc.nat(DAYS * 24 * 60 - 1),
    fc.nat(180).map((n) => 25 * 60 + n),
  ),
  plan: fc.option(fc.constantFrom('x', 'y', 'zé'), { nil: null }),
  region: fc.constantFrom('eu', 'us'),
  value: fc.oneof(fc.nat(5_000).map(String), fc.constantFrom('0.1', '2.25', '99999999999999.5')),
  user: fc.constantFrom('u1', 'u2', 'u3', 'u4'),
});

beforeAll(async () => {
  process.stderr.write(`queries: SEED=${SEED}\n`);
  database = await createTestDatabase();
  const { pool } = database;
  for (const aggregation of AGGREGATIONS)
    meters.set(
      aggregation,
      await defineMeter(pool, `q_${aggregation.toLowerCase()}`, {
        eventType: 'thing',
        aggregation,
        ...(aggregation === 'COUNT' ? {} : { valueProperty: aggregation === 'UNIQUE_COUNT' ? '$.user' : '$.value' }),
        groupBy: { plan: '$.plan', region: '$.region' },
      }),
    );
  events = fc
    .sample(sample, { numRuns: 700, seed: SEED })
    .map(({ minute, ...rest }, i) => ({ ...rest, at: START + minute * MINUTE + i }))
    .sort((a, b) => a.at - b.at);
  const log = await openTestLog(2);
  const running = await startProcessors(pool, log, {
    now: () => START + DAYS * DAY + 2 * HOUR,
    // Looked for once: what comes late stays stale, so that queries must read around it.
    settings: { ...TEST_SETTINGS, batchEvents: 50, refoldMs: 100 * DAY },
  });
  let appended = 0;
  const append = async (some: readonly Sent[], from: number) => {
    for (const [partition, own] of Map.groupBy(some, (one) => (one.tenant === 'a' ? 0 : 1)))
      await log.append([
        records(
          partition,
          own.map((one, i) => plain(one, `${from}-${partition}-${i}`)),
        ),
      ]);
    appended += some.length;
    await committed(pool, appended);
  };
  const late = events.filter((_, i) => i % 9 === 0);
  await append(
    events.filter((_, i) => i % 9 !== 0),
    0,
  );
  const end = ['a', 'b'].map((tenant) => ({
    tenant,
    at: START + DAYS * DAY + 90 * MINUTE,
    plan: null,
    region: 'eu',
    value: '1',
    user: 'u1',
  }));
  await append(end, 1);
  // Folding goes on between batches, and while there are none.
  await until(async () => {
    const { rows } = await pool.query('SELECT FROM log_offsets WHERE coarse_until < $1', [
      new Date(START + DAYS * DAY),
    ]);
    return rows.length === 0 ? true : undefined;
  });
  await append(late, 2);
  await running.stop();
  await log.dispose();
  events = [...events, ...end];
  const { rows: stale } = await pool.query('SELECT FROM stale_hours');
  expect(stale.length).toBeGreaterThan(10);
  const { rows } = await pool.query<{ id: string; customer_id: string }>('SELECT id, customer_id FROM tenants');
  for (const row of rows) tenantIds.set(row.customer_id, row.id);
}, 120_000);
afterAll(() => database.drop());

function plain(one: Sent, key: string) {
  return event(key, {
    tenant: one.tenant,
    type: 'thing',
    timestamp: one.at,
    attributes: new Map([
      ['region', { kind: 'string' as const, value: one.region }],
      ['value', { kind: 'decimal' as const, value: one.value }],
      ['user', { kind: 'string' as const, value: one.user }],
      ...(one.plan === null ? [] : [['plan', { kind: 'string' as const, value: one.plan }] as const]),
    ]),
  });
}

interface Question {
  windowSize: WindowSize | undefined;
  zone: string;
  dimensions: ('subject' | 'plan' | 'region')[];
  tenants: string[] | null;
  plans: string[] | null;
  range: [number, number];
  empty: boolean;
  byValue: 'asc' | 'desc' | undefined;
  page: number;
  top: number;
}
const question: fc.Arbitrary<Question> = fc.record({
  windowSize: fc.constantFrom<(WindowSize | undefined)[]>('MINUTE', 'HOUR', 'DAY', 'MONTH', undefined),
  zone: fc.constantFrom('UTC', 'Europe/Paris', 'Asia/Kolkata', 'Asia/Kathmandu', 'America/New_York'),
  dimensions: fc.subarray<'subject' | 'plan' | 'region'>(['subject', 'plan', 'region']),
  tenants: fc.constantFrom(null, ['a'], ['b', 'c']),
  plans: fc.constantFrom(null, ['x'], ['y', 'zé']),
  range: fc.oneof(
    fc.constant<[number, number]>([START, START + DAYS * DAY]),
    fc
      .tuple(fc.integer({ min: -60, max: 70 * 60 }), fc.integer({ min: 1, max: 50 * 60 }))
      .map(([from, length]): [number, number] => [START + from * MINUTE, START + (from + length) * MINUTE]),
    fc
      .tuple(fc.nat(60), fc.integer({ min: 1, max: 72 }))
      .map(([from, length]): [number, number] => [START + from * HOUR, START + (from + length) * HOUR]),
  ),
  empty: fc.boolean(),
  byValue: fc.constantFrom(undefined, 'asc' as const, 'desc' as const),
  page: fc.integer({ min: 1, max: 40 }),
  top: fc.integer({ min: 1, max: 6 }),
});
test('P3: aggregation × window × zone × group-by × filter × range equal a plain recomputation, also over stale hours', async () => {
  await fc.assert(
    fc.asyncProperty(question, async (asked) => {
      for (const aggregation of AGGREGATIONS) {
        const meter = meters.get(aggregation);
        if (meter === undefined) throw new Error('no meter');
        const query: MeterQuery = {
          meter,
          tenantIds: asked.tenants?.map((tenant) => tenantIds.get(tenant) ?? '') ?? null,
          from: asked.range[0],
          to: asked.range[1],
          windowSize: asked.windowSize,
          windowTimeZone: asked.zone,
          bySubject: asked.dimensions.includes('subject'),
          groupBy: asked.dimensions.filter((name) => name !== 'subject'),
          filters: new Map(asked.plans === null ? [] : [['plan', asked.plans]]),
          quantile: 0.9,
          fillEmpty: asked.empty && asked.windowSize !== 'MINUTE',
        };
        const { rows } = await runMeterQuery(database.pool, query);
        const expected = recompute(asked, aggregation);
        const given = rows.filter((row) => expected.has(cellOf(row)) || row.value !== '0');
        expect([aggregation, given.map(cellOf).sort()]).toEqual([aggregation, [...expected.keys()].sort()]);
        for (const row of given) {
          const due = expected.get(cellOf(row)) ?? '';
          if (aggregation === 'PERCENTILE')
            expect(Math.abs(Number(row.value) - Number(due))).toBeLessThanOrEqual(Number(due) * 0.0101);
          else
            expect([aggregation, cellOf(row), new Decimal(row.value).toFixed()]).toEqual([
              aggregation,
              cellOf(row),
              due,
            ]);
        }
        if (asked.empty && asked.windowSize !== 'MINUTE' && rows.length > 0) {
          const groups = new Set(rows.map((row) => JSON.stringify(row.key))).size;
          const windows = new Set(rows.map((row) => row.windowStart)).size;
          expect(rows).toHaveLength(groups * windows);
        }
        await comparePages(query, rows, asked);
        await compareTop(query, rows, asked.top);
      }
    }),
    { numRuns: 40, seed: SEED, timeout: 30_000, endOnFailure: true },
  );
}, 180_000);

/** Pages in either order hold the rows of the whole answer, each once, in that order. */
async function comparePages(query: MeterQuery, rows: readonly MeterRow[], { byValue, page }: Question): Promise<void> {
  const most = Math.max(page, Math.ceil(rows.length / 3));
  const paged: MeterRow[] = [];
  const ordered = { ...query, byValue: query.fillEmpty ? undefined : byValue, limit: most };
  for (let after: MeterQuery['after']; ; ) {
    const next = (await runMeterQuery(database.pool, { ...ordered, after })).rows;
    paged.push(...next);
    const last = next.at(-1);
    if (next.length < most || last === undefined) break;
    after = { windowStart: last.windowStart, key: last.key, value: last.exact ?? last.value };
  }
  const sign = ordered.byValue === 'desc' ? -1 : ordered.byValue === 'asc' ? 1 : 0;
  // Sorting is stable: equal values stay in the order of windows and groups.
  const due = rows.toSorted((a, b) => sign * new Decimal(a.exact ?? a.value).cmp(b.exact ?? b.value));
  expect(paged.map(cellOf)).toEqual(due.map(cellOf));
}

/** Only the groups with the highest values over the whole range, all their windows. */
async function compareTop(query: MeterQuery, rows: readonly MeterRow[], top: number): Promise<void> {
  const whole = await runMeterQuery(database.pool, { ...query, windowSize: undefined, fillEmpty: false });
  const highest = whole.rows
    .toSorted((a, b) => new Decimal(b.exact ?? b.value).cmp(a.exact ?? a.value))
    .slice(0, top)
    .map((row) => JSON.stringify(row.key));
  const given = await runMeterQuery(database.pool, { ...query, top });
  // Without groups there is one, also where it is empty.
  const due = rows.filter(({ key }) => key.length === 0 || highest.includes(JSON.stringify(key)));
  expect(given.rows.map(cellOf)).toEqual(due.map(cellOf));
}

const cellOf = (row: MeterRow): string => JSON.stringify([row.windowStart, ...row.key]);

function recompute(asked: Question, aggregation: Aggregation): Map<string, string> {
  const [from, to] = asked.range;
  const counted = events.filter(
    (one) =>
      one.at >= from &&
      one.at < to &&
      (asked.tenants === null || asked.tenants.includes(one.tenant)) &&
      (asked.plans === null || (one.plan !== null && asked.plans.includes(one.plan))),
  );
  const unit =
    asked.windowSize === undefined
      ? undefined
      : ({ MINUTE: 'minute', HOUR: 'hour', DAY: 'day', MONTH: 'month' } as const)[asked.windowSize];
  const cells = Map.groupBy(counted, (one) => {
    const start =
      unit === undefined ? from : DateTime.fromMillis(one.at, { zone: asked.zone }).startOf(unit).toMillis();
    const names = { subject: one.tenant, plan: one.plan, region: one.region };
    const key = (['subject', 'plan', 'region'] as const).filter((name) => asked.dimensions.includes(name));
    return JSON.stringify([Math.max(from, start), ...key.map((name) => names[name])]);
  });
  return new Map([...cells].map(([cell, own]) => [cell, valueOfCell(own, aggregation)]));
}

function valueOfCell(own: readonly Sent[], aggregation: Aggregation): string {
  const Exact = Decimal.clone({ precision: 80 });
  const values = own.map((one) => new Exact(one.value));
  const sum = values.reduce((all, value) => all.add(value), new Exact(0));
  switch (aggregation) {
    case 'COUNT':
      return String(own.length);
    case 'SUM':
      return sum.toFixed();
    case 'MIN':
      return Exact.min(...values).toFixed();
    case 'MAX':
      return Exact.max(...values).toFixed();
    case 'AVG':
      return new Decimal(significant(sum.div(own.length).toFixed(40), 20)).toFixed();
    case 'UNIQUE_COUNT':
      return String(new Set(own.map((one) => one.user)).size);
    case 'LATEST':
      return new Exact(own.toSorted((a, b) => a.at - b.at).at(-1)?.value ?? 0).toFixed();
    default: {
      const sorted = values.toSorted((a, b) => a.cmp(b));
      return (sorted[Math.floor(0.9 * (sorted.length - 1))] ?? new Exact(0)).toFixed();
    }
  }
}
