import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createPurgeJob } from '../../tenants/index.ts';
import {
  eraseEvents,
  forgetPurged,
  holdTenant,
  manifestKey,
  openArchiveReader,
  recallDay,
  releaseTenant,
  runArchive,
  verifyArchive,
} from '../../tiering/index.ts';
import { always, makeTiering, NOW, takeIn } from '../support/archive.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { event, openTestLog } from '../support/processors.ts';

const DAY = 86_400_000;
const FIRST = Date.UTC(2026, 0, 1);
const DAYS = ['2026-01-01', '2026-01-02', '2026-01-03'];

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let deps: Awaited<ReturnType<typeof makeTiering>>;
const ids = new Map<string, string>();
const idOf = (tenant: string) => ids.get(tenant) ?? '';

beforeEach(async () => {
  database = await createTestDatabase();
  log = await openTestLog();
  deps = await makeTiering(database.pool);
  await takeIn(
    database.pool,
    Array.from({ length: 180 }, (_, i) =>
      event(`k-${i}`, { tenant: `t-${i % 3}`, timestamp: FIRST + (i % 3) * DAY + i, user_id: `u-${i % 4}` }),
    ),
    log,
  );
  // Each tenant on each day.
  await takeIn(
    database.pool,
    DAYS.flatMap((_, day) =>
      [0, 1, 2].map((i) => event(`d-${day}-${i}`, { tenant: `t-${i}`, timestamp: FIRST + day * DAY })),
    ),
    log,
  );
  const { rows } = await database.pool.query<{ id: string; customer_id: string }>(
    'SELECT id, customer_id FROM tenants',
  );
  for (const { id, customer_id } of rows) ids.set(customer_id, id);
  expect((await runArchive(deps, always())).archived).toEqual(DAYS);
}, 60_000);
afterEach(async () => {
  await log.dispose();
  await database.drop();
  deps.dispose();
});

/** As an analyst reads the folder, manifests or not. */
async function inFiles(where = 'true'): Promise<Record<string, number>> {
  const instance = await DuckDBInstance.create(':memory:');
  const connection = await instance.connect();
  const files = join(deps.root, 'objects/events/date=*/part-*.parquet');
  const reader = await connection.runAndReadAll(
    `SELECT customer_id, count(*)::INT AS n FROM read_parquet('${files}', hive_partitioning = true) WHERE ${where} GROUP BY 1 ORDER BY 1`,
  );
  const found = Object.fromEntries(reader.getRows().map(([tenant, n]) => [String(tenant), Number(n)]));
  connection.closeSync();
  instance.closeSync();
  return found;
}
const markDeleted = (tenant: string) =>
  database.pool.query(`UPDATE tenants SET status = 'deleted', delete_after = now() WHERE id = $1`, [idOf(tenant)]);
const purge = () =>
  createPurgeJob({
    pool: database.pool,
    objects: deps.store,
    heartbeats: undefined,
    closePool: async () => undefined,
    forget: () => undefined,
  }).run({ id: '', params: {}, ...always() });
const comeBack = (tenant: string) =>
  database.pool.query(`UPDATE tenants SET status = 'ready', purged_at = NULL, delete_after = NULL WHERE id = $1`, [
    idOf(tenant),
  ]);

describe('P7: a purged tenant', () => {
  test('is gone from the files of the archive, and what is sent since it came back is not; days of a held one stay held', async () => {
    await holdTenant(deps, idOf('t-1'), 'case 7');
    await markDeleted('t-0');
    expect(await purge()).toMatchObject({ purged: [{ tenant_id: idOf('t-0') }] });
    // Somebody recalls a day before the files are written anew, and the tenant comes back.
    await recallDay(deps, always(), DAYS[0] ?? '', 3);
    await comeBack('t-0');
    await takeIn(
      database.pool,
      [event('again', { tenant: 't-0', timestamp: FIRST + DAY + 1, received_at: Date.now() + 60_000 })],
      log,
    );
    expect((await runArchive(deps, always())).rows).toBe(1);
    expect(await inFiles()).toEqual({ 't-0': 64, 't-1': 63, 't-2': 63 });

    const ending = new AbortController();
    const once = { signal: ending.signal, progress: async () => ending.abort() };
    await expect(forgetPurged(deps, once)).rejects.toThrow();
    expect(await forgetPurged(deps, always())).toMatchObject({ forgotten: [idOf('t-0')], frozen: [], busy: [] });
    expect(await inFiles()).toEqual({ 't-0': 1, 't-1': 63, 't-2': 63 });
    expect(await verifyArchive(deps, always())).toMatchObject({ days: 3, damaged: [] });
    for (const day of DAYS) expect(await deps.store.tags(manifestKey(day))).toMatchObject({ hold: 'yes' });
    await runArchive({ ...deps, now: () => NOW + 4 * DAY }, always());
    expect(await inFiles()).toEqual({ 't-0': 1, 't-1': 63, 't-2': 63 });
    const reader = openArchiveReader(deps);
    const far = { from: 0, to: NOW };
    expect(await reader.search({ tenantIds: [idOf('t-0')], ...far }, 100)).toMatchObject([
      { idempotency_key: 'again' },
    ]);
    await reader.close();
    expect(await forgetPurged(deps, always())).toMatchObject({ forgotten: [], rows: 0 });
  }, 60_000);

  test('under legal hold is not purged before it is released', async () => {
    await holdTenant(deps, idOf('t-2'), 'case 8');
    await markDeleted('t-2');
    expect(await purge()).toMatchObject({ purged: [] });
    await forgetPurged(deps, always());
    expect(await inFiles()).toEqual({ 't-0': 63, 't-1': 63, 't-2': 63 });
    const { rows } = await database.pool.query('SELECT reason FROM legal_holds');
    expect(rows).toEqual([{ reason: 'case 8' }]);
    await releaseTenant(deps, idOf('t-2'));
    expect(await purge()).toMatchObject({ purged: [{ tenant_id: idOf('t-2') }] });
    await forgetPurged(deps, always());
    expect(await inFiles()).toEqual({ 't-0': 63, 't-1': 63 });
  }, 60_000);
});

test('a forgotten user is in no file, and days of a held tenant stay held', async () => {
  await holdTenant(deps, idOf('t-1'), 'case 7');
  const before = await inFiles(`user_id = 'u-1'`);
  await eraseEvents(deps, always(), { tenantId: idOf('t-0'), userId: 'u-1', reason: 'asked', by: 'test' });
  expect(await inFiles(`user_id = 'u-1'`)).toEqual({ 't-1': before['t-1'], 't-2': before['t-2'] });
  for (const day of DAYS) expect(await deps.store.tags(manifestKey(day))).toMatchObject({ hold: 'yes' });
}, 60_000);
