import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { closePeriods, Exact, listStatements, readLines, replayStatement, show } from '../../billing/index.ts';
import { type AttributeValue, type PlainEvent, VOID_TYPE } from '../../schemas/index.ts';
import { billingOn, makePlan, subscribe } from '../support/billing.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const START = '2026-01-01T00:00:00Z';
const JANUARY_CLOSED = Date.parse('2026-02-02T00:00:00Z');
const FEBRUARY_CLOSED = Date.parse('2026-03-02T00:00:00Z');
const PARTITIONS = 2;
const TENANTS = ['a', 'b', 'c'] as const;

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let processors: Awaited<ReturnType<typeof startProcessors>>;
let now = JANUARY_CLOSED;
let sent = 0;
let run = 0;
const deps = () => billingOn(database.pool, () => now);

beforeAll(async () => {
  process.stderr.write(`statement-replay: SEED=${SEED}\n`);
  database = await createTestDatabase();
  log = await openTestLog(PARTITIONS);
  processors = await startProcessors(database.pool, log, { settings: { ...TEST_SETTINGS, batchEvents: 7 } });
});
afterAll(async () => {
  await processors.stop();
  await log.dispose();
  await database.drop();
});

/** An event, or the void of one. Few keys, so that many are duplicates, which differ. */
const record = fc.record({
  tenant: fc.constantFrom(...TENANTS),
  key: fc.nat(15),
  void: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  // Mostly January, which is the period that is closed first.
  minute: fc.oneof(
    { weight: 4, arbitrary: fc.nat(31 * 1440 - 1) },
    { weight: 1, arbitrary: fc.nat(58 * 1440) },
    { weight: 1, arbitrary: fc.constantFrom(0, 31 * 1440 - 1, 31 * 1440) },
  ),
  tokens: fc.oneof(fc.nat(5_000).map(String), fc.constantFrom('0.1', '2.25', '99999999999.5')),
  model: fc.constantFrom('x', 'y'),
  endpoint: fc.constantFrom('/x', '/y', '/z'),
  user: fc.nat(3),
});
type Record = typeof record extends fc.Arbitrary<infer T> ? T : never;

const price = fc.integer({ min: 0, max: 30_000 }).map((units) => show(new Exact(units).div(10_000)));
const tiers = fc
  .tuple(fc.integer({ min: 1, max: 2_000 }), price, price)
  .map(([upTo, first, second]) => [{ up_to: upTo, unit_amount: first }, { unit_amount: second }]);
const model = fc.oneof(
  fc.record({ model: fc.constant('per_unit'), unit_amount: price }),
  fc.record({ model: fc.constantFrom('graduated', 'volume'), tiers }),
  fc.record({ model: fc.constant('package'), package_size: fc.integer({ min: 1, max: 500 }), package_amount: price }),
);
/** What is counted, and which part of it has a price of its own. */
const counted = fc.constantFrom(
  { meter: 'tokens' },
  { meter: 'tokens', filters: { model: ['x'] } },
  { meter: 'tokens', group_by: ['model'] },
  { meter: 'api_calls', filters: { endpoint: ['/x', '/y'] } },
  { meter: 'api_calls', group_by: ['endpoint'] },
  { meter: 'active_users' },
);
const charges = fc
  .array(fc.tuple(counted, model), { minLength: 1, maxLength: 4 })
  .map((all) => [
    { key: 'base', model: 'flat', amount: '30' },
    ...all.map(([what, price], i) => ({ key: `c${i}`, ...what, ...price })),
  ]);

function toEvent(given: Record, tenant: string): PlainEvent {
  const timestamp = Date.parse(START) + given.minute * 60_000 + 500;
  const attributes = new Map<string, AttributeValue>(
    given.void
      ? [['tidemark.actor', { kind: 'string', value: 'somebody' }]]
      : [
          ['tokens_consumed', { kind: 'decimal', value: given.tokens }],
          ['model', { kind: 'string', value: given.model }],
          ['endpoint', { kind: 'string', value: given.endpoint }],
        ],
  );
  return event(`k${given.key}`, {
    tenant,
    timestamp,
    received_at: timestamp,
    attributes,
    user_id: `u${given.user}`,
    ...(given.void ? { type: VOID_TYPE } : {}),
  });
}

/** Appends in batches of `size`, and waits until all are counted. */
async function meter(all: readonly Record[], size: number, prefix: string): Promise<void> {
  for (let i = 0; i < all.length; i += size)
    for (const [partition, own] of Map.groupBy(all.slice(i, i + size), (one) => one.tenant.charCodeAt(0) % PARTITIONS))
      await log.append([
        records(
          partition,
          own.map((one) => toEvent(one, `${prefix}${one.tenant}`)),
        ),
      ]);
  sent += all.length;
  await committed(database.pool, sent);
}

/** Statements of a subscription, the first one first. */
async function statementsOf(subscription: string) {
  const query = { tenantIds: null, subscription, status: null, before: null, limit: 9 };
  return (await listStatements(database.pool, query)).toSorted((a, b) => a.serial - b.serial);
}

async function expectReplays(serial: number): Promise<void> {
  expect(await replayStatement(deps(), serial)).toMatchObject({ identical: true, differences: [] });
}

test('P8: replay = statement, whatever the plan, the batches, duplicates, late events and voids; adjustments make up the rest', async () => {
  const scenario = fc.record({
    charges,
    before: fc.array(record, { minLength: 1, maxLength: 60, size: 'max' }),
    after: fc.array(record, { minLength: 1, maxLength: 30, size: 'max' }),
    size: fc.integer({ min: 1, max: 40 }),
  });
  await fc.assert(
    fc.asyncProperty(scenario, async ({ charges, before, after, size }) => {
      const prefix = `r${run++}`;
      await makePlan(database.pool, prefix, charges);
      const subscriptions = [];
      for (const tenant of TENANTS)
        subscriptions.push(await subscribe(database.pool, `${prefix}${tenant}`, prefix, START));
      await meter(before, size, prefix);
      now = JANUARY_CLOSED;
      expect(await closePeriods(deps(), now)).toMatchObject({ closed: { length: TENANTS.length }, failed: [] });
      await meter(after, size, prefix);
      // The same plan of the same tenant, closed only when everything is there.
      const whole = [];
      for (const tenant of TENANTS) whole.push(await subscribe(database.pool, `${prefix}${tenant}`, prefix, START));
      for (const { id } of subscriptions) for (const { serial } of await statementsOf(id)) await expectReplays(serial);
      now = FEBRUARY_CLOSED;
      expect((await closePeriods(deps(), now)).failed).toEqual([]);
      for (const [i, { id }] of subscriptions.entries()) {
        const [first, second] = await statementsOf(id);
        const [atOnce] = await statementsOf(whole[i]?.id ?? '');
        if (first === undefined || second === undefined || atOnce === undefined) throw new Error('not closed');
        for (const { serial } of [first, second, atOnce]) await expectReplays(serial);
        let sum = new Exact(first.head.total);
        for await (const text of readLines(database.pool, second.serial)) {
          const line: { kind: string; amount: string } = JSON.parse(text);
          if (line.kind === 'adjustment') sum = sum.plus(line.amount);
        }
        expect(sum.toFixed(2)).toBe(atOnce.head.total);
      }
    }),
    { seed: SEED, numRuns: Number(process.env.RUNS ?? 10), endOnFailure: true },
  );
}, 120_000);
