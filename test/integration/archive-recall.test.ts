import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AttributeValue, TIME_TABLES, VOID_TYPE } from '../../schemas/index.ts';
import { configureEngine, withTransaction } from '../../sinks/index.ts';
import {
  eraseEvents,
  listDays,
  openArchiveReader,
  recallDay,
  runArchive,
  type TieringDeps,
} from '../../tiering/index.ts';
import { always, makeTiering, NOW, takeIn } from '../support/archive.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { event, openTestLog } from '../support/processors.ts';

const DAY = 86_400_000;
const FIRST = Date.UTC(2026, 0, 1);
const WHICH = '2026-01-01';
const attributes = (all: Record<string, AttributeValue>) => new Map(Object.entries(all));
const decimal = (value: string): AttributeValue => ({ kind: 'decimal', value });
const string = (value: string): AttributeValue => ({ kind: 'string', value });
const long = (value: number): AttributeValue => ({ kind: 'long', value });

describe('a day of the archive that is recalled', () => {
  let database: TestDatabase;
  let log: Awaited<ReturnType<typeof openTestLog>>;
  let deps: TieringDeps & { root: string; dispose(): void };
  /** When the stay is over. */
  let later: TieringDeps;
  let before: unknown[];

  beforeAll(async () => {
    database = await createTestDatabase();
    log = await openTestLog();
    deps = await makeTiering(database.pool);
    later = { ...deps, now: () => NOW + 15 * DAY };
    const many = Array.from({ length: 2_500 }, (_, i) =>
      event(`e-${i}`, {
        tenant: `tenant-${i % 3}`,
        timestamp: FIRST + i * 20_000,
        user_id: i % 7 === 0 ? null : `user-${i % 7}`,
        request_id: i % 2 === 0 ? `req-${i}` : null,
        source: i % 5 === 0 ? 'https://a' : i % 5 === 1 ? 'plain' : null,
        keyed_by_source: i % 5 === 0,
        attributes: attributes({
          tokens_consumed: decimal(`${i % 2 === 0 ? '-' : ''}${i}.000000000000000001`),
          message: string(`say "hi", ${i}\r\n\t\\ é 💧 {},[]: `),
        }),
        data: i % 4 === 0 ? `{"nested":{"n":${i}},"list":[1,"x"],"":" "}` : null,
      }),
    );
    const odd = [
      // Values that no column takes stay in the JSON, under the column's name.
      attributes({
        model: long(7),
        status_code: decimal('200.5'),
        duration_ms: string('1.5'),
        delta: decimal('-0.10'),
      }),
      attributes({
        status_code: long(-3),
        duration_ms: decimal('0'),
        queue_wait_ms: long(12_345_678_901),
        tool: string(''),
      }),
      attributes({ tokens_consumed: decimal('99999999999999999999.999999999999999999'), model: string('outer') }),
      attributes({}),
    ].flatMap((some, i) =>
      [null, '{"model":"inner","endpoint":"/in-data","tokens_consumed":5,"cloudevents":{"a":"b"}}', '{"x":1e30}'].map(
        (data, k) => event(`odd-${i}-${k}`, { timestamp: FIRST + i, attributes: some, data }),
      ),
    );
    const voids = [
      event('e-4', { tenant: 'tenant-1', type: VOID_TYPE, timestamp: FIRST + 5 }),
      event('e-5', {
        tenant: 'tenant-2',
        type: VOID_TYPE,
        timestamp: FIRST + 5,
        source: 'https://a',
        keyed_by_source: true,
      }),
    ];
    await takeIn(database.pool, [...many, ...odd, ...voids], log);
    before = await rowsNow();
    await configureEngine(database.pool, deps.engine, 0);
    expect(await runArchive(deps, always())).toMatchObject({ archived: [WHICH], left: {} });
    expect(await rowsNow()).toEqual([]);
  }, 120_000);
  afterAll(async () => {
    await log.dispose();
    await database.drop();
    deps.dispose();
  });

  /** Every column of every row, but for the time it was stored. */
  const rowsNow = async (where = 'true'): Promise<unknown[]> =>
    (
      await database.pool.query<{ row: unknown }>(
        `SELECT (to_jsonb(e) - 'stored_at')::text || ' ' || coalesce(e.data::text, 'NULL') AS row FROM events AS e WHERE ${where} ORDER BY e.shard, e.log_offset`,
      )
    ).rows.map((one) => one.row);
  const manifest = () =>
    JSON.parse(readFileSync(join(deps.root, `objects/events/date=${WHICH}/manifest.json`), 'utf8')) as {
      generation: number;
      rows: number;
      files: { key: string }[];
    };
  const found = async () => {
    const reader = openArchiveReader(deps);
    const events = await reader.search({ tenantIds: null, from: FIRST, to: FIRST + DAY }, 10_000);
    await reader.close();
    return events;
  };

  test('P9: is back row by row as it was, in a chunk of its own, and read there alone', async () => {
    expect(before).toHaveLength(2_514);
    const range = { from: FIRST, to: FIRST + DAY };
    const reader = openArchiveReader(deps);
    const asked = await reader.days(range);
    expect(await recallDay(deps, always(), WHICH, 14)).toEqual({
      day: WHICH,
      rows: 2_514,
      recalled_until: new Date(NOW + 14 * DAY).toISOString(),
      minutes: false,
    });
    expect(await rowsNow()).toEqual(before);
    expect(await found()).toEqual([]);
    // A search that read the database before the day came back.
    expect(await reader.search({ tenantIds: null, ...range, days: asked }, 10_000)).toHaveLength(2_514);
    await reader.close();
    const client = await database.pool.connect();
    const chunks = await deps.engine.listChunks(client, TIME_TABLES.events);
    client.release();
    expect(chunks).toMatchObject([{ from: FIRST, to: FIRST + DAY }]);
    expect(await listDays(deps)).toMatchObject([{ day: WHICH, rows: 2_514, recalled_until: expect.any(String) }]);
    expect(manifest()).toMatchObject({ generation: 1, rows: 2_514 });
  });

  test('stays as long as it was asked for, and takes late events', async () => {
    await takeIn(database.pool, [event('late-1', { tenant: 'tenant-0', timestamp: FIRST + 7 })], log);
    expect(await runArchive(deps, always())).toMatchObject({ archived: [], released: [], left: {} });
    expect(await rowsNow()).toHaveLength(2_515);
    await recallDay(deps, always(), WHICH, 14);
    expect(await rowsNow()).toHaveLength(2_515);
  });

  test('P9: leaves with its late events as a further file; what was archived is not written again', async () => {
    const [part] = manifest().files;
    expect(await runArchive(later, always())).toMatchObject({
      archived: [WHICH],
      released: [WHICH],
      rows: 1,
      left: {},
    });
    expect(await rowsNow()).toEqual([]);
    expect(manifest()).toMatchObject({ generation: 2, rows: 2_515, files: expect.arrayContaining([part]) });
    expect(await found()).toHaveLength(2_515);
  });

  test('P9: comes back beside late events that are in no file, and leaves without a write when nothing was changed', async () => {
    await takeIn(database.pool, [event('late-2', { tenant: 'tenant-0', timestamp: FIRST + 8 })], log);
    expect(await runArchive(deps, always())).toMatchObject({ rows: 1 });
    const generation = manifest().generation;
    await recallDay(deps, always(), WHICH, 14);
    expect(await rowsNow()).toHaveLength(2_516);
    // Under TimescaleDB it is compressed meanwhile.
    await withTransaction(database.pool, async (client) => {
      for (const chunk of await deps.engine.listChunks(client, TIME_TABLES.events))
        await deps.engine.compressChunk(client, chunk);
    });
    expect(await runArchive(later, always())).toMatchObject({ archived: [], released: [WHICH], rows: 0, left: {} });
    expect(await rowsNow()).toEqual([]);
    expect(manifest()).toMatchObject({ generation, rows: 2_516 });
    expect(await runArchive(later, always())).toMatchObject({ archived: [], released: [], left: {} });
  });

  test('P9: what was changed while it was back is what the archive has afterwards', async () => {
    const { generation, files } = manifest();
    await recallDay(deps, always(), WHICH, 14);
    await database.pool.query(`UPDATE events SET model = 'mended' WHERE idempotency_key = 'e-9'`);
    await database.pool.query(`DELETE FROM events WHERE idempotency_key = 'e-10'`);
    expect(await runArchive(later, always())).toMatchObject({ released: [WHICH], left: {} });
    const after = manifest();
    expect(after).toMatchObject({ generation: generation + 1, rows: 2_515 });
    expect(after.files.filter(({ key }) => files.some((old) => old.key === key))).toEqual([]);
    const events = await found();
    expect(events).toHaveLength(2_515);
    expect(events.find((one) => one.idempotency_key === 'e-9')?.data).toContain('"model":"mended"');
    expect(await runArchive(later, always())).toMatchObject({ archived: [], released: [], rows: 0, left: {} });
  });

  test('a user is forgotten in both places while it is back', async () => {
    await recallDay(deps, always(), WHICH, 14);
    const { rows } = await database.pool.query<{ tenant_id: string; n: number }>(
      `SELECT tenant_id, count(*)::int AS n FROM events WHERE user_id = 'user-3' GROUP BY 1 ORDER BY 1 LIMIT 1`,
    );
    const [{ tenant_id: tenantId, n } = { tenant_id: '', n: 0 }] = rows;
    const erased = await eraseEvents(deps, always(), { tenantId, userId: 'user-3', reason: 'asked', by: 'test' });
    expect(erased).toMatchObject({ hot_rows: n, archived_rows: n });
    expect(await runArchive(later, always())).toMatchObject({ released: [WHICH], left: {} });
    const events = await found();
    expect(events).toHaveLength(2_515 - n);
    expect(events.filter((one) => one.tenant_id === tenantId && one.user_id === 'user-3')).toEqual([]);
  });

  test('P9: a day whose rows somebody dropped goes back to its files', async () => {
    const rows = manifest().rows;
    await recallDay(deps, always(), WHICH, 14);
    await withTransaction(database.pool, async (client) => {
      for (const chunk of await deps.engine.listChunks(client, TIME_TABLES.events))
        await deps.engine.dropChunk(client, chunk);
    });
    expect(await runArchive(later, always())).toMatchObject({ released: [WHICH], left: {} });
    expect(await found()).toHaveLength(rows);
  });

  test('is refused where it is not in the archive, or another archiver has it', async () => {
    await expect(recallDay(deps, always(), '2026-02-01', 14)).rejects.toMatchObject({ code: 'not_found' });
    await database.pool.query(`UPDATE archive_days SET lease_until = 'infinity'`);
    await expect(recallDay(deps, always(), WHICH, 14)).rejects.toMatchObject({ code: 'archive_busy' });
  });
});
