import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodeEvent } from '../../schemas/index.ts';
import {
  applyLifecycle,
  checkLifecycle,
  costView,
  eraseEvents,
  holdTenant,
  listDays,
  manifestKey,
  openArchiveReader,
  releaseTenant,
  runArchive,
  type TieringDeps,
  verifyArchive,
} from '../../tiering/index.ts';
import { always, makeTiering, takeIn } from '../support/archive.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors } from '../support/processors.ts';

const DAY = 86_400_000;
const FIRST = Date.UTC(2026, 0, 1);

describe('operations on the archive', () => {
  let database: TestDatabase;
  let log: Awaited<ReturnType<typeof openTestLog>>;
  let deps: TieringDeps & { dispose(): void };
  const ids = new Map<string, string>();
  const idOf = (tenant: string) => ids.get(tenant) ?? '';

  beforeAll(async () => {
    database = await createTestDatabase();
    log = await openTestLog();
    deps = await makeTiering(database.pool);
    await takeIn(
      database.pool,
      Array.from({ length: 900 }, (_, i) =>
        event(`k-${i}`, {
          tenant: `t-${i % 3}`,
          timestamp: FIRST + (i % 2) * DAY + i * 60_000,
          user_id: `u-${i % 4}`,
          attributes: new Map([
            ['endpoint', { kind: 'string' as const, value: 'say "hi"' }],
            ['tokens_consumed', { kind: 'decimal' as const, value: '0.1' }],
          ]),
        }),
      ),
      log,
    );
    // The last day stays in the database.
    await takeIn(database.pool, [event('hot', { tenant: 't-0', user_id: 'u-0', timestamp: FIRST + 10 * DAY })], log);
    const { rows } = await database.pool.query<{ id: string; customer_id: string }>(
      'SELECT id, customer_id FROM tenants',
    );
    for (const { id, customer_id } of rows) ids.set(customer_id, id);
    expect((await runArchive(deps, always(), '2026-01-05')).rows).toBe(900);
  }, 120_000);
  afterAll(async () => {
    await log.dispose();
    await database.drop();
    deps.dispose();
  });

  const count = async (query: { tenantIds: string[] | null; userId?: string }) => {
    const reader = openArchiveReader(deps);
    const found = await reader.search({ ...query, from: 0, to: FIRST + 100 * DAY }, 5_000);
    await reader.close();
    return found.length;
  };

  test('the price of what is hot and archived, by tier and tenant', async () => {
    const view = await costView(deps);
    expect(view.tiers.map((one) => one.tier)).toEqual(['hot', 'STANDARD']);
    expect(view.tiers[1]).toMatchObject({ rows: 900 });
    expect(view.tenants.map((one) => [one.customer_id, one.rows]).sort()).toEqual([
      ['t-0', 300],
      ['t-1', 300],
      ['t-2', 300],
    ]);
    expect(Number(view.total)).toBeGreaterThan(0);
  });

  test('lifecycle rules are set, and doctor sees when they are not', async () => {
    expect(await checkLifecycle(deps)).toMatchObject([
      { ok: false, detail: expect.stringContaining('tidemark-parts-free') },
    ]);
    await applyLifecycle(deps);
    expect(await checkLifecycle(deps)).toMatchObject([{ ok: true }]);
    const other = { ...deps.settings, lifecycle: { ...deps.settings.lifecycle, expireDays: 100 } };
    expect(await checkLifecycle({ ...deps, settings: other })).toMatchObject([{ ok: false }]);
  });

  test('a legal hold keeps days from expiring, and the tenant from being erased', async () => {
    expect(await holdTenant(deps, idOf('t-1'), 'case 7')).toBe(2);
    expect(await deps.store.tags(manifestKey('2026-01-01'))).toMatchObject({ hold: 'yes' });
    const far = { ...deps, now: () => Date.now() + 3_000 * DAY };
    expect((await runArchive(far, always(), '2026-01-05')).expired).toEqual([]);
    expect(await count({ tenantIds: null })).toBe(900);
    await expect(
      eraseEvents(deps, always(), { tenantId: idOf('t-1'), userId: null, reason: 'x', by: 'test' }),
    ).rejects.toMatchObject({ code: 'conflict' });
    expect(await releaseTenant(deps, idOf('t-1'))).toBe(2);
    expect(await deps.store.tags(manifestKey('2026-01-01'))).toMatchObject({ hold: 'no' });
  });

  test('a user is forgotten everywhere, and nobody else is', async () => {
    const before = await count({ tenantIds: [idOf('t-0')], userId: 'u-0' });
    expect(before).toBe(75);
    const bad = (tenant: string, user: string) =>
      encodeEvent(event(`bad-${tenant}-${user}`, { tenant, user_id: user, data: '{"a":' }));
    const letters = [
      bad('t-0', 'u-0'),
      bad('t-0', 'u-01'),
      bad('t-1', 'u-0'),
      // Nobody can read whose these are, but for the texts in them.
      bad('t-0', 'u-0').subarray(0, -2),
      bad('t-1', 'u-0').subarray(0, -2),
      Buffer.from('{"customer_id":"t-0","user_id":"u-0"'),
      Buffer.from('{"customer_id":"t-0","user_id":"u-00"'),
    ];
    await log.append([records(0, letters)]);
    const processors = await startProcessors(database.pool, log);
    await committed(database.pool, 901 + letters.length);
    await processors.stop();
    const kept = async () =>
      (
        await database.pool.query<{ n: number }>(
          'SELECT (log_offset - 901)::int AS n FROM dead_letters ORDER BY log_offset',
        )
      ).rows.map(({ n }) => n);
    expect(await kept()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const result = await eraseEvents(deps, always(), {
      tenantId: idOf('t-0'),
      userId: 'u-0',
      reason: 'asked',
      by: 'test',
    });
    expect(result).toMatchObject({ hot_rows: 1, archived_rows: 75 });
    const days = await Promise.all(
      (await listDays(deps)).map(async ({ day }) => JSON.parse(await text(await deps.store.get(manifestKey(day))))),
    );
    const left = days.map((manifest) => manifest.tenants[idOf('t-0')] ?? { rows: 0, tokens_consumed: '0' });
    expect(left.reduce((sum, { rows }) => sum + rows, 0)).toBe(225);
    for (const { rows, tokens_consumed: tokens } of left) expect(tokens).toBe(String(rows / 10));
    expect(await kept()).toEqual([1, 2, 4, 6]);
    expect(await count({ tenantIds: [idOf('t-0')], userId: 'u-0' })).toBe(0);
    expect(await count({ tenantIds: [idOf('t-1')], userId: 'u-0' })).toBe(75);
    expect(await count({ tenantIds: null })).toBe(825);
    expect(await verifyArchive(deps, always())).toMatchObject({ days: 2, damaged: [] });
    const { rows } = await database.pool.query(
      'SELECT user_id, reason, requested_by, verified_at IS NOT NULL AS done FROM erasures',
    );
    expect(rows).toEqual([{ user_id: 'u-0', reason: 'asked', requested_by: 'test', done: true }]);
    const { rows: names } = await database.pool.query(
      `SELECT 1 FROM members_minute WHERE tenant_id = $1 AND 'u-0' = ANY (members) UNION ALL SELECT 1 FROM members_hour WHERE tenant_id = $1 AND 'u-0' = ANY (members)`,
      [idOf('t-0')],
    );
    expect(names).toEqual([]);
    const manifests = await listDays(deps);
    expect(manifests.reduce((sum, day) => sum + day.rows, 0)).toBe(825);
  });

  test('a tenant is forgotten, and late events of its days are archived as ever', async () => {
    await eraseEvents(deps, always(), { tenantId: idOf('t-2'), userId: null, reason: 'left', by: 'test' });
    expect(await count({ tenantIds: [idOf('t-2')] })).toBe(0);
    expect(await count({ tenantIds: null })).toBe(525);
    await takeIn(database.pool, [event('late', { tenant: 't-1', timestamp: FIRST + 1 })], log);
    expect((await runArchive(deps, always(), '2026-01-05')).rows).toBe(1);
    expect(await verifyArchive(deps, always())).toMatchObject({ days: 2, damaged: [] });
  });

  test('what is not held expires by the rules', async () => {
    const far = { ...deps, now: () => Date.now() + 3_000 * DAY };
    const { expired } = await runArchive(far, always(), '2026-01-05');
    expect(expired.sort()).toEqual(['2026-01-01', '2026-01-02']);
    expect(await listDays(deps)).toEqual([]);
  });
});
