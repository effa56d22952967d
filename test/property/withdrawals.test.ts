import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DefinitionInput } from '../../metering/index.ts';
import { STEPS, type Step } from '../../processors/index.ts';
import { runMeterQuery } from '../../query-api/meters/run-query.ts';
import { AGGREGATIONS, type AttributeValue, type Meter, type PlainEvent, VOID_TYPE } from '../../schemas/index.ts';
import { backfillJob, defineMeter, plainQuery } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { aggregate, claimKey, type Fact } from '../support/recompute.ts';
import { until } from '../support/server.ts';

const BASE = Date.UTC(2026, 5, 1, 10);
const HOUR = 3_600_000;
const PARTITIONS = 2;
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

const valuesOf = (aggregation: string): Partial<DefinitionInput>[] => {
  if (aggregation === 'COUNT') return [{}];
  if (aggregation === 'UNIQUE_COUNT') return [{ valueProperty: '$.user_id' }];
  const valueProperty = '$.usage.tokens';
  return aggregation === 'PEAK' || aggregation === 'TIME_WEIGHTED_AVG'
    ? [
        { valueProperty, valueKind: 'gauge' },
        { valueProperty, valueKind: 'delta' },
      ]
    : [{ valueProperty }];
};
const definitions = AGGREGATIONS.flatMap((aggregation) =>
  valuesOf(aggregation).map(
    (value): DefinitionInput => ({ ...value, aggregation, eventType: '*', groupBy: { endpoint: '$.endpoint' } }),
  ),
);

/** A record: an event, a void of a key, or an event that replaces a key. */
const record = fc.record({
  tenant: fc.constantFrom('a', 'b'),
  key: fc.nat(14),
  kind: fc.oneof(
    { weight: 6, arbitrary: fc.constant('event' as const) },
    { weight: 2, arbitrary: fc.constant('void' as const) },
    { weight: 2, arbitrary: fc.constant('replace' as const) },
  ),
  target: fc.nat(14),
  minute: fc.oneof({ weight: 3, arbitrary: fc.nat(3) }, { weight: 1, arbitrary: fc.integer({ min: -200, max: 100 }) }),
  ms: fc.oneof(fc.nat(3), fc.nat(59_999)),
  user: fc.option(fc.nat(3), { nil: null }),
  endpoint: fc.constantFrom('/x', '/y'),
  tokens: fc.oneof(fc.nat(50).map(String), fc.constantFrom('0.1', '-2.25', '99999999999999999.5', 'none')),
});
type Record = typeof record extends fc.Arbitrary<infer T> ? T : never;

function toEvent(given: Record): PlainEvent {
  const attributes = new Map<string, AttributeValue>([['endpoint', { kind: 'string', value: given.endpoint }]]);
  if (given.tokens !== 'none') attributes.set('usage.tokens', { kind: 'decimal', value: given.tokens });
  if (given.kind === 'replace') attributes.set('replaces', { kind: 'string', value: `k${given.target}` });
  if (given.kind === 'void') attributes.set('tidemark.actor', { kind: 'string', value: 'somebody' });
  return event(`k${given.key}`, {
    tenant: given.tenant,
    type: given.kind === 'void' ? VOID_TYPE : 'call',
    timestamp: BASE + given.minute * 60_000 + given.ms,
    user_id: given.user === null ? null : `u${given.user}`,
    attributes,
    data: given.tokens === 'none' ? null : `{"usage":{"tokens":${given.tokens}}}`,
  });
}

interface Outcome {
  counted: Record[];
  accepted: number;
  duplicate: number;
  dead: number;
}

/** The rules, in the order of the log: see docs/meters.md. */
function outcomeOf(all: readonly Record[]): Outcome {
  const claimed = new Set<string>();
  const replaced = new Set<string>();
  const withdrawn = new Set<string>();
  const events: Record[] = [];
  const outcome: Outcome = { counted: [], accepted: 0, duplicate: 0, dead: 0 };
  for (const one of all) {
    const key = `${one.tenant} ${one.key}`;
    const claim = one.kind === 'void' ? `${key} void` : key;
    const target = `${one.tenant} ${one.target}`;
    if (claimed.has(claim)) {
      outcome.duplicate++;
      continue;
    }
    if (one.kind === 'replace' && (target === key || replaced.has(target))) {
      outcome.dead++;
      continue;
    }
    claimed.add(claim);
    outcome.accepted++;
    if (one.kind === 'void') withdrawn.add(key);
    else events.push(one);
    if (one.kind === 'replace') {
      replaced.add(target);
      withdrawn.add(target);
    }
  }
  outcome.counted = events.filter((one) => !withdrawn.has(`${one.tenant} ${one.key}`));
  return outcome;
}

const scenario = fc.record({
  all: fc.array(record, { minLength: 1, maxLength: 70 }),
  appendAt: fc.integer({ min: 1, max: 30 }),
  batchEvents: fc.integer({ min: 1, max: 30 }),
  failures: fc.array(fc.record({ step: fc.constantFrom(...STEPS), after: fc.nat(6) }), { maxLength: 2 }),
  /** after so many records a second set of meters is defined */
  definedAt: fc.nat(70),
  cacheRows: fc.constantFrom(4, 60, 200, 100_000),
  folded: fc.boolean(),
});

test('P2, P3, P4: voids and corrections in any order, with failures, restarts and backfills, leave what a plain recomputation says, in every aggregation', async () => {
  const { pool } = database;
  await fc.assert(
    fc.asyncProperty(scenario, async ({ all, appendAt, batchEvents, failures, definedAt, cacheRows, folded }) => {
      await pool.query(
        'TRUNCATE log_offsets, events, rollup_groups, rollups_minute, rollups_hour, rollups_coarse, stale_hours, unmerged_hours, members_minute, members_hour, dedupe_blocks, dedupe_runs, dedupe_pages, accounting, dead_letters, withdrawals, meters, meter_versions, meter_cuts, meter_gaps RESTART IDENTITY',
      );
      const log = await openTestLog(PARTITIONS);
      const pending = failures.map((one) => ({ ...one }));
      const fault = (step: Step) => {
        const next = pending[0];
        if (next === undefined || next.step !== step || next.after-- > 0) return;
        pending.shift();
        throw Object.assign(new Error(`made to fail at ${step}`), { code: '40001' });
      };
      const define = (set: string) => Promise.all(definitions.map((one, i) => defineMeter(pool, `${set}_${i}`, one)));
      const start = () =>
        startProcessors(pool, log, {
          now: () => BASE + (folded ? 4 : 0) * HOUR,
          fault,
          settings: { ...TEST_SETTINGS, batchEvents, cacheRows, dedupeSealKeys: 20 },
        });
      const first = await define('first');
      let later: Meter[] | undefined;
      let running = await start();
      try {
        for (let i = 0; i < all.length; i += appendAt) {
          if (later === undefined && i >= definedAt) later = await define('later');
          await log.append(batchesOf(all.slice(i, i + appendAt)));
        }
        later ??= await define('later');
        await running.stop();
        running = await start();
        const job = await backfillJob(pool, log);
        const context = { id: '', params: {}, signal: new AbortController().signal, progress: async () => undefined };
        await job.run(context);
        await until(async () => {
          const { rows } = await pool.query<{ n: number }>('SELECT sum(next)::float8 AS n FROM log_offsets');
          return rows[0]?.n === all.length ? true : undefined;
        });
        await running.stop();
        const outcome = outcomeOf(all);
        await compareAccount(outcome, all.length);
        for (const [i, meter] of [...first, ...later].entries()) await compareMeter(meter, outcome.counted, `${i}`);
      } finally {
        await running.stop();
        await log.dispose();
      }
    }),
    { numRuns: Number(process.env.RUNS ?? 15), timeout: 60_000, endOnFailure: true },
  );
}, 300_000);

const batchesOf = (all: readonly Record[]) =>
  [...Map.groupBy(all, (one) => one.tenant.charCodeAt(0) % PARTITIONS)].map(([partition, own]) =>
    records(partition, own.map(toEvent)),
  );

async function compareAccount(outcome: Outcome, received: number): Promise<void> {
  const { rows } = await database.pool.query(
    `SELECT sum(received)::int AS received, sum(accepted)::int AS accepted, sum(duplicate)::int AS duplicate, sum(dead_lettered)::int AS dead,
       (SELECT count(*)::int FROM events) AS stored FROM accounting`,
  );
  const { accepted, duplicate, dead } = outcome;
  expect(rows[0]).toEqual({ received, accepted, duplicate, dead, stored: accepted });
}

async function compareMeter(meter: Meter, counted: readonly Record[], which: string): Promise<void> {
  const from = BASE - 4 * HOUR;
  const to = BASE + 2 * HOUR + 7 * 60_000;
  const questions = (['MINUTE', 'HOUR', undefined] as const).flatMap((windowSize) =>
    [true, false].map((bySubject) => ({ windowSize, bySubject })),
  );
  for (const { windowSize, bySubject } of questions) {
    const query = plainQuery(meter, [from, to], { windowSize, bySubject, groupBy: ['endpoint'] });
    const { rows } = await runMeterQuery(database.pool, query);
    const got = Object.fromEntries(rows.map((row) => [`${row.windowStart} ${row.key.join(' ')}`, plain(row.value)]));
    const width = windowSize === 'MINUTE' ? 60_000 : windowSize === 'HOUR' ? HOUR : to - from;
    const wanted: { [cell: string]: string } = {};
    const facts = counted.map((one) => ({ ...one, fact: factOf(meter, one) }));
    for (const [group, own] of Map.groupBy(facts, (one) =>
      bySubject ? `${one.tenant} ${one.endpoint}` : one.endpoint,
    ))
      for (let at = from; at < to; at += width) {
        const value = aggregate(
          meter.aggregation,
          meter.valueKind,
          own.map((one) => one.fact),
          at,
          Math.min(at + width, to),
        );
        if (value !== undefined) wanted[`${at} ${group}`] = plain(value);
      }
    const asked = { which, ...meter, windowSize, bySubject };
    expect({ ...asked, rows: got }).toEqual({ ...asked, rows: wanted });
  }
}

/** 1.50 and 1.5 are one number. */
const plain = (value: string): string =>
  value
    .replace(/(\.\d*?)0+$/, '$1')
    .replace(/\.$/, '')
    .replace(/^-0$/, '0');

function factOf(meter: Meter, one: Record): Fact {
  const value =
    meter.aggregation === 'UNIQUE_COUNT'
      ? one.user === null
        ? null
        : `u${one.user}`
      : one.tokens === 'none'
        ? null
        : one.tokens;
  return {
    series: `${one.tenant} ${one.endpoint}`,
    at: BASE + one.minute * 60_000 + one.ms,
    value,
    key: claimKey(one.tenant, `k${one.key}`),
  };
}
