import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TIME_TABLES } from '../../schemas/index.ts';
import { configureEngine, withTransaction } from '../../sinks/index.ts';
import { runArchive, type TieringDeps } from '../../tiering/index.ts';
import { always, makeTiering, takeIn } from '../support/archive.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { event, openTestLog } from '../support/processors.ts';

const DAY = Date.UTC(2026, 0, 1);

/** The archive as an analyst reads it: DuckDB alone, by the documented layout. */
async function readAlone<T>(root: string, sql: string): Promise<T[]> {
  const instance = await DuckDBInstance.create(':memory:');
  const connection = await instance.connect();
  const reader = await connection.runAndReadAll(
    sql.replace('ARCHIVE', `read_parquet('${root}/objects/events/date=*/part-*.parquet', hive_partitioning = true)`),
  );
  connection.closeSync();
  instance.closeSync();
  return reader.getRowObjectsJson() as T[];
}

describe('the archive', () => {
  let database: TestDatabase;
  let log: Awaited<ReturnType<typeof openTestLog>>;
  let deps: TieringDeps & { root: string; dispose(): void };
  beforeAll(async () => {
    database = await createTestDatabase();
    log = await openTestLog();
    deps = await makeTiering(database.pool);
    const many = Array.from({ length: 2_500 }, (_, i) =>
      event(`e-${i}`, {
        tenant: `tenant-${i % 3}`,
        timestamp: DAY + i * 20_000,
        user_id: `user-${i % 7}`,
        request_id: i % 2 === 0 ? `req-${i}` : null,
        source: i % 5 === 0 ? 'https://a' : i % 5 === 1 ? 'plain' : null,
        keyed_by_source: i % 5 === 0,
        attributes: new Map([
          ['tokens_consumed', { kind: 'decimal' as const, value: `${i}.000000000000000001` }],
          ['message', { kind: 'string' as const, value: `say "hi", ${i}\r\n\t\\ é 💧` }],
        ]),
        data: i % 4 === 0 ? `{"nested":{"n":${i}},"list":[1,"x"]}` : null,
      }),
    );
    await takeIn(database.pool, many, log);
    // Under TimescaleDB the day is compressed before it is archived, and later events come late into what is compressed.
    await configureEngine(database.pool, deps.engine, 0);
    await withTransaction(database.pool, async (client) => {
      for (const chunk of await deps.engine.listChunks(client, TIME_TABLES.events))
        expect(await deps.engine.compressChunk(client, chunk)).toBe(deps.engine.name === 'timescale');
    });
  }, 120_000);
  afterAll(async () => {
    await log.dispose();
    await database.drop();
    deps.dispose();
  });

  test('P9: a day leaves the database as sorted Parquet files with a manifest, and every row is there', async () => {
    const result = await runArchive(deps, always());
    expect(result).toEqual({ archived: ['2026-01-01'], released: [], rows: 2_500, left: {}, minutes: [], expired: [] });
    const { rows: hot } = await database.pool.query('SELECT count(*)::int AS n FROM events');
    expect(hot).toEqual([{ n: 0 }]);
    const rows = await readAlone<Record<string, string | null>>(
      deps.root,
      `SELECT *, epoch_ms("timestamp") AS at FROM ARCHIVE ORDER BY log_offset`,
    );
    expect(rows).toHaveLength(2_500);
    rows.forEach((row, i) => {
      expect(row).toMatchObject({
        customer_id: `tenant-${i % 3}`,
        idempotency_key: `e-${i}`,
        source: i % 5 === 0 ? 'https://a' : i % 5 === 1 ? 'plain' : null,
        user_id: `user-${i % 7}`,
        request_id: i % 2 === 0 ? `req-${i}` : null,
        at: String(DAY + i * 20_000),
        log_offset: String(i),
        date: '2026-01-01',
      });
      expect(row.data).toContain(`"tokens_consumed":${i}.000000000000000001`);
      expect(JSON.parse(row.data ?? '')).toEqual({
        tokens_consumed: Number(`${i}.000000000000000001`),
        message: `say "hi", ${i}\r\n\t\\ é 💧`,
        ...(i % 4 === 0 ? { nested: { n: i }, list: [1, 'x'] } : {}),
      });
    });
    const manifest = JSON.parse(readFileSync(join(deps.root, 'objects/events/date=2026-01-01/manifest.json'), 'utf8'));
    expect(manifest).toMatchObject({ rows: 2_500, generation: 1, previous: null, positions: [{ next: 2_500 }] });
    expect(manifest.files.length).toBeGreaterThan(2);
    expect(Object.values(manifest.tenants)).toContainEqual(
      expect.objectContaining({ customer_id: 'tenant-0', rows: 834, tokens_consumed: '1042083.000000000000000834' }),
    );
    const order = await readAlone<{ n: string }>(
      deps.root,
      `SELECT count(*) AS n FROM (SELECT tenant_id, "timestamp", lag((tenant_id, "timestamp")) OVER (PARTITION BY filename ORDER BY file_row_number) AS before
         FROM read_parquet('${deps.root}/objects/events/*/*.parquet', filename = true, file_row_number = true)) WHERE before > (tenant_id, "timestamp")`,
    );
    expect(order).toEqual([{ n: '0' }]);
  });

  test('P9: late events of an archived day go into a further file of it', async () => {
    await takeIn(
      database.pool,
      [event('late-1', { timestamp: DAY + 5 }), event('e-1', { tenant: 'tenant-1', timestamp: DAY + 20_000 })],
      log,
    );
    expect(await runArchive(deps, always())).toMatchObject({ archived: ['2026-01-01'], rows: 1 });
    const rows = await readAlone<{ n: string; keys: string }>(
      deps.root,
      'SELECT count(*) AS n, count(DISTINCT (customer_id, idempotency_key)) AS keys FROM ARCHIVE',
    );
    expect(rows).toEqual([{ n: '2501', keys: '2501' }]);
    expect(await runArchive(deps, always())).toMatchObject({ archived: [], rows: 0, left: {} });
  });

  test('P13: big events in little memory make more files, and all of them are there', async () => {
    const start = DAY + 86_400_000;
    const filler = 'x'.repeat(50_000);
    const big = Array.from({ length: 600 }, (_, i) =>
      event(`big-${i}`, { timestamp: start + i * 1_000, data: `{"filler":"${i}${filler}${i * 7919}"}` }),
    );
    await takeIn(database.pool, big, log);
    const small = { ...deps, settings: { ...deps.settings, memoryBytes: 40e6, threads: 1 } };
    expect(await runArchive(small, always())).toMatchObject({ rows: 600, left: {} });
    const manifest = JSON.parse(readFileSync(join(deps.root, 'objects/events/date=2026-01-02/manifest.json'), 'utf8'));
    expect(manifest.files.length).toBeGreaterThan(1);
  }, 120_000);
});
