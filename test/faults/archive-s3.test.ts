import { CopyObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openS3Store } from '../../sinks/index.ts';
import {
  dayOf,
  listDays,
  openArchiveReader,
  partKey,
  recallDay,
  restoreDay,
  runArchive,
  type TieringDeps,
  verifyArchive,
} from '../../tiering/index.ts';
import { always, makeTiering, takeIn } from '../support/archive.ts';
import { type FaultyProxy, startFaultyProxy } from '../support/faulty-proxy.ts';
import { type Moto, startMoto } from '../support/moto.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { event, openTestLog } from '../support/processors.ts';

const DAY = 86_400_000;
const FIRST = Date.UTC(2026, 0, 1);
let moto: Moto;
let proxy: FaultyProxy;
let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let deps: TieringDeps & { dispose(): void };
let days = 0;

beforeAll(async () => {
  moto = await startMoto();
  proxy = await startFaultyProxy(moto.endpoint);
  database = await createTestDatabase();
  log = await openTestLog();
  const store = openS3Store({ bucket: moto.bucket, endpoint: proxy.url, region: 'us-east-1', requestTimeoutMs: 5_000 });
  deps = await makeTiering(database.pool, { store });
}, 300_000);
afterAll(async () => {
  deps.store.close();
  await proxy.close();
  await moto.stop();
  await log.dispose();
  await database.drop();
  deps.dispose();
});

async function newDay(): Promise<string> {
  const start = FIRST + days++ * DAY;
  await takeIn(
    database.pool,
    Array.from({ length: 1_500 }, (_, i) =>
      event(`${days}-${i}`, { timestamp: start + i * 50_000, user_id: `u-${i % 3}` }),
    ),
    log,
  );
  return dayOf(start);
}
const hot = async () => {
  const { rows } = await database.pool.query<{ n: number }>('SELECT count(*)::int AS n FROM events');
  return rows[0]?.n;
};
/** Everything is in the bucket, once. */
async function requireArchived(): Promise<void> {
  proxy.decide = () => 'pass';
  expect((await runArchive(deps, always())).left).toEqual({});
  expect(await hot()).toBe(0);
  expect(await verifyArchive(deps, always())).toMatchObject({ days, damaged: [], frozen: [] });
  expect((await listDays(deps)).reduce((sum, day) => sum + day.rows, 0)).toBe(days * 1_500);
}

describe('P9: S3', () => {
  test('that errs now and then is asked again', async () => {
    await newDay();
    let count = 0;
    proxy.decide = () => (count++ % 3 === 1 ? 'error' : 'pass');
    expect((await runArchive(deps, always())).archived).toHaveLength(1);
    expect(proxy.mishaps).toBeGreaterThan(1);
    await requireArchived();
  });

  test('that is away leaves everything in the database', async () => {
    const day = await newDay();
    proxy.decide = () => 'error';
    const { left } = await runArchive(deps, always());
    expect(left[day]).toContain('503');
    expect(await hot()).toBe(1_500);
    await requireArchived();
  });

  test('that cuts uploads off stores nothing of them', async () => {
    const day = await newDay();
    proxy.decide = ({ method, path }) => (method === 'PUT' && path.includes('part-1') ? 'cut' : 'pass');
    const { left } = await runArchive(deps, always());
    expect(Object.keys(left)).toEqual([day]);
    expect(await hot()).toBe(1_500);
    await requireArchived();
  });

  test('that is slow is waited for', async () => {
    await newDay();
    proxy.decide = ({ method }) => (method === 'PUT' ? 'slow' : 'pass');
    expect((await runArchive(deps, always())).archived).toHaveLength(1);
    await requireArchived();
  });

  test('that gives back other bytes than it was given is found out before anything is dropped', async () => {
    const day = await newDay();
    proxy.decide = ({ method, path }) => (method === 'GET' && path.includes('part-0') ? 'flip' : 'pass');
    const { left } = await runArchive(deps, always());
    expect(left[day]).toContain(partKey(day, 0));
    expect(await hot()).toBe(1_500);
    await requireArchived();
  });

  test('in Glacier a day is answered with how to restore it, and found when that is done', async () => {
    const day = dayOf(FIRST);
    const Bucket = moto.bucket;
    const [listed] = await listDays(deps, { from: day, to: day });
    for (const { key: Key } of listed?.files ?? [])
      await moto.client.send(
        new CopyObjectCommand({ Bucket, Key, CopySource: `${Bucket}/${Key}`, StorageClass: 'GLACIER' }),
      );
    expect(await listDays(deps, { from: day, to: day })).toMatchObject([{ tier: 'cold' }]);
    const reader = openArchiveReader(deps);
    const search = () => reader.search({ tenantIds: null, from: FIRST, to: FIRST + 2 * DAY, userId: 'u-1' }, 2_000);
    await expect(search()).rejects.toMatchObject({
      code: 'archive_frozen',
      extensions: { days: [day], restore: [`/api/v1/archives/${day}/restore`] },
    });
    expect(await verifyArchive(deps, always())).toMatchObject({
      damaged: [],
      frozen: [expect.stringContaining(day), expect.anything()],
    });
    await expect(recallDay(deps, always(), day, 3)).rejects.toMatchObject({ code: 'archive_frozen' });
    expect(await restoreDay(deps, day, { days: 3, speed: 'Standard' })).toMatchObject({ day, tier: 'restored' });
    expect(await search()).toHaveLength(1_000);
    // Into the database it comes as it was written, or not at all.
    proxy.decide = ({ method, path }) => (method === 'GET' && path.includes('part-1') ? 'flip' : 'pass');
    await expect(recallDay(deps, always(), day, 3)).rejects.toMatchObject({ code: 'archive_damaged' });
    expect(await hot()).toBe(0);
    expect(await search()).toHaveLength(1_000);
    proxy.decide = () => 'pass';
    expect(await recallDay(deps, always(), day, 3)).toMatchObject({ rows: 1_500 });
    expect(await hot()).toBe(1_500);
    expect(await search()).toHaveLength(500);
    await reader.close();
  });
});
