import { expect, test } from 'vitest';
import { TIME_TABLES } from '../../schemas/index.ts';
import {
  checkDatabase,
  configureColumnstore,
  detectEngine,
  isUsable,
  NativeEngine,
  TimescaleEngine,
} from '../../sinks/index.ts';
import { migrateInProcess, openInProcessTimescale } from '../support/pglite.ts';

/** TimescaleDB under its Apache licence: on Azure, and in Debian's own build. */
const { events } = TIME_TABLES;
const INSERT = `
  INSERT INTO events ("timestamp", received_at, log_offset, shard, tenant_id, key, keyed_by_source, idempotency_key, type)
  SELECT $1::timestamptz + i * interval '1 hour', now(), i, 1, gen_random_uuid(), gen_random_uuid(), false, i::text, 'api_call'
  FROM generate_series(0, 47) AS i`;

test('hypertables under the Apache licence go on without compression: write, list, detach, drop', async () => {
  const database = await openInProcessTimescale();
  await migrateInProcess(database);
  const made = await detectEngine(database);
  if (!(made instanceof TimescaleEngine)) throw new Error('no hypertables');
  // The licence stands in the server's configuration, out of reach here: this is the engine as it is then.
  const engine = new TimescaleEngine({ ...made.extension, licence: 'apache' });
  await engine.ensureChunks(database, events, [Date.UTC(2026, 5, 1)]);
  expect(await engine.listChunks(database, events)).toEqual([]);
  await database.query(INSERT, ['2026-06-01T00:00:00Z']);
  const [first, second] = await engine.listChunks(database, events);
  expect([first?.from, second?.to]).toEqual([Date.UTC(2026, 5, 1), Date.UTC(2026, 5, 3)]);
  if (first === undefined || second === undefined) throw new Error('no chunks');
  expect(await engine.compressChunk(database, first)).toBe(false);
  await engine.detachChunk(database, first);
  const { rows } = await database.query<{ kept: number; left: number }>(
    `SELECT (SELECT count(*)::int FROM ${first.name}) AS kept, (SELECT count(*)::int FROM events) AS left`,
  );
  expect(rows).toEqual([{ kept: 24, left: 24 }]);
  await engine.dropChunk(database, first);
  await engine.dropChunk(database, second);
  expect(await engine.listChunks(database, events)).toEqual([]);
  await database.close();
});

test('a licence or version that is not enough means native partitions, and doctor says so', async () => {
  expect(isUsable({ version: '2.28.3', licence: 'apache' })).toBe(false);
  expect(isUsable({ version: '2.18.2', licence: 'timescale' })).toBe(false);
  expect(isUsable({ version: '2.19.0', licence: 'timescale' })).toBe(true);
  expect(isUsable({ version: '3.0.0', licence: 'timescale' })).toBe(true);
  const database = await openInProcessTimescale();
  await migrateInProcess(database, { hypertables: false });
  await new NativeEngine().ensureChunks(database, events, [0]);
  // TimescaleDB comes after the data: what is there stays as it is.
  await migrateInProcess(database);
  expect((await detectEngine(database)).name).toBe('native');
  const checks = await checkDatabase(database, 4);
  expect(checks.find((one) => one.name === 'storage engine')).toMatchObject({
    ok: true,
    detail: expect.stringMatching(/^native partitions; TimescaleDB .* came after the data/),
  });
  await database.query('DROP TABLE events_19700101');
  await migrateInProcess(database);
  expect((await detectEngine(database)).name).toBe('timescale');
  await database.close();
});

test('doctor shows the engine, its licence, what is compressed and the policies', async () => {
  const database = await openInProcessTimescale();
  const unmade = await checkDatabase(database, 4);
  expect(unmade.map((one) => `${one.ok} ${one.name}: ${one.detail}`).slice(-2)).toEqual([
    expect.stringMatching(/^true migrations: none yet: the first start applies \d+/),
    expect.stringMatching(/^true storage engine: TimescaleDB 2\.\S+, from the first start/),
  ]);
  await migrateInProcess(database);
  const engine = await detectEngine(database);
  if (!(engine instanceof TimescaleEngine)) throw new Error('no hypertables');
  await configureColumnstore(database, engine.extension, 7);
  const details = new Map((await checkDatabase(database, 4)).map((one) => [one.name, one.detail]));
  expect(details.get('storage engine')).toMatch(/^TimescaleDB 2\.\S+, hypertables$/);
  expect(details.get('storage licence')).toContain('community features');
  expect(details.get('storage columnstore')).toBe('0 of 0 chunks compressed');
  const policies = async () => {
    const { rows } = await database.query<{ table: string; after: string; again: string }>(
      "SELECT hypertable_name AS table, config->>'compress_after' AS after, config->>'recompress' AS again FROM timescaledb_information.jobs WHERE config ? 'compress_after' ORDER BY 1",
    );
    return rows;
  };
  const days = (n: number) =>
    Object.keys(TIME_TABLES)
      .sort()
      .map((table) => ({ table, after: `${n} days`, again: 'false' }));
  expect(await policies()).toEqual(days(7));
  // Settings changed, twice the same, and switched off.
  for (const wanted of [30, 30]) await configureColumnstore(database, engine.extension, wanted);
  expect(await policies()).toEqual(days(30));
  await configureColumnstore(database, engine.extension, 0);
  expect(await policies()).toEqual([]);
  // What each table is cut and sorted by.
  const { rows } = await database.query<{ table: string; segmentby: string; orderby: string }>(
    `SELECT hypertable::text AS table, segmentby, orderby FROM timescaledb_information.hypertable_columnstore_settings WHERE hypertable::text IN ('events', 'rollups_hour') ORDER BY 1`,
  );
  expect(rows).toEqual([
    { table: 'events', segmentby: 'tenant_id', orderby: '"timestamp" DESC,shard DESC,log_offset DESC' },
    { table: 'rollups_hour', segmentby: 'meter_id,tenant_id', orderby: 'bucket,group_key,shard' },
  ]);
  await database.close();
});
