import { afterAll, beforeAll, expect, test } from 'vitest';
import { closePeriods, findStatement, replayStatement, serialOf } from '../../billing/index.ts';
import { openArchiveReader, runArchive } from '../../tiering/index.ts';
import { always, makeTiering, takeIn } from '../support/archive.ts';
import { billingOn, makePlan, subscribe } from '../support/billing.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { event, openTestLog } from '../support/processors.ts';

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let tiering: Awaited<ReturnType<typeof makeTiering>>;
let archive: ReturnType<typeof openArchiveReader>;
const NOW = Date.parse('2026-02-20T00:00:00Z');
const deps = () => billingOn(database.pool, () => NOW, archive);

const use = (key: string, tenant: string, at: string, tokens: string, user: string) =>
  event(key, {
    tenant,
    timestamp: Date.parse(at),
    user_id: user,
    attributes: new Map([['tokens_consumed', { kind: 'decimal' as const, value: tokens }]]),
    data: '{"nested":{"n":1.50}}',
  });

beforeAll(async () => {
  database = await createTestDatabase();
  log = await openTestLog();
  tiering = await makeTiering(database.pool);
  archive = openArchiveReader(tiering);
  await makePlan(database.pool, 'p', [
    { meter: 'tokens', model: 'per_unit', unit_amount: '0.01' },
    { meter: 'active_users', model: 'per_unit', unit_amount: '5' },
  ]);
  await takeIn(
    database.pool,
    [
      use('a1', 'acme', '2026-01-05T10:20:00Z', '100.125', 'u1'),
      use('a2', 'acme', '2026-01-20T00:00:00Z', '200', 'u2'),
      use('a3', 'acme', '2026-02-05T10:16:59Z', '50', 'u1'),
      use('a4', 'acme', '2026-02-05T10:17:00Z', '7000', 'u3'),
      use('b1', 'other', '2026-01-06T00:00:00Z', '9999', 'u9'),
      // So that the hours before are folded.
      use('b2', 'other', '2026-02-19T00:00:00Z', '1', 'u9'),
    ],
    log,
  );
}, 120_000);
afterAll(async () => {
  await archive.close();
  await log.dispose();
  await database.drop();
  tiering.dispose();
});

test('P8: a statement recomputed from the archive is identical byte for byte', async () => {
  await subscribe(database.pool, 'acme', 'p', '2026-01-05T10:17:00Z');
  expect((await closePeriods(deps(), NOW)).closed).toEqual(['S-000001']);
  const { head } = (await findStatement(database.pool, 1)) ?? {};
  // 350.125 × 0.01 and two users
  expect(head?.total).toBe('13.50');
  expect(await replayStatement(deps(), 1)).toMatchObject({ identical: true });
  const { archived } = await runArchive(tiering, always());
  expect(archived).toHaveLength(5);
  const { rows } = await database.pool.query('SELECT FROM events');
  expect(rows).toHaveLength(0);
  expect(await replayStatement(deps(), 1)).toMatchObject({ identical: true, differences: [] });
});

test('P8: a period that cuts an hour whose minutes are gone is counted from raw events', async () => {
  const { rows } = await database.pool.query('SELECT FROM archived_minutes');
  expect(rows.length).toBeGreaterThan(0);
  await subscribe(database.pool, 'acme', 'p', '2026-01-05T10:17:30Z');
  const [number = ''] = (await closePeriods(deps(), NOW)).closed;
  const { head } = (await findStatement(database.pool, serialOf(number) ?? 0)) ?? {};
  expect(head?.total).toBe('13.50');
  expect(await replayStatement(deps(), serialOf(number) ?? 0)).toMatchObject({ identical: true });
});

test('P8: an event that is withdrawn later is still in a statement that counted it', async () => {
  const { rows } = await database.pool.query<{ shard: number; tenant_id: string; next: number }>(
    `SELECT shard, next::int AS next, (SELECT id FROM tenants WHERE customer_id = 'acme') AS tenant_id FROM log_offsets LIMIT 1`,
  );
  const { shard, tenant_id: tenantId, next } = rows[0] ?? { shard: 0, tenant_id: '', next: 0 };
  const keys: string[] = [];
  for await (const one of deps().readRawEvents({
    tenantId,
    from: Date.UTC(2026, 0, 20),
    to: Date.UTC(2026, 0, 21),
    positions: [{ topic: '', partition: 0, shard, next }],
  }))
    keys.push(one.key);
  expect(keys).toHaveLength(1);
  const withdraw = (offset: number) =>
    database.pool.query(
      `INSERT INTO withdrawals (shard, log_offset, action, tenant_id, key, by_key, idempotency_key) VALUES ($1, $2, 'void', $3, $4, gen_random_uuid(), 'a2')`,
      [shard, offset, tenantId, keys[0]],
    );
  await withdraw(next);
  expect(await replayStatement(deps(), 1)).toMatchObject({ identical: true });
  await withdraw(next - 1);
  expect(await replayStatement(deps(), 1)).toMatchObject({ identical: false });
});
