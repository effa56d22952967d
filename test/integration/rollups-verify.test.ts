import { afterEach, beforeEach, expect, test } from 'vitest';
import { BUILTIN_METERS } from '../../metering/index.ts';
import { type VerifyDeps, type VerifyRequest, verifyRollups } from '../../processors/index.ts';
import type { PlainEvent } from '../../schemas/index.ts';
import { detectEngine } from '../../sinks/index.ts';
import { type ArchiveReader, archivedEventsOf, dayOf, openArchiveReader, runArchive } from '../../tiering/index.ts';
import { always, makeTiering, TEST_TIERING } from '../support/archive.ts';
import { backfillJob, defineMeter } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { DAY, DAYS, definitions, eventOf, FIRST, voidOf } from '../support/varied-events.ts';

const PARTITIONS = 2;
let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let tiering: Awaited<ReturnType<typeof makeTiering>>;
let reader: ArchiveReader;
let deps: VerifyDeps;
beforeEach(async () => {
  database = await createTestDatabase();
  log = await openTestLog(PARTITIONS);
  // Of the two days in the archive the first has no minutes any more.
  tiering = await makeTiering(database.pool, { settings: { ...TEST_TIERING, hotDays: 364 } });
  reader = openArchiveReader(tiering);
  deps = {
    pool: database.pool,
    engine: await detectEngine(database.pool),
    archive: archivedEventsOf(reader),
    meters: BUILTIN_METERS,
    rowsMax: 2_000,
  };
});
afterEach(async () => {
  await reader.close();
  await log.dispose();
  await database.drop();
  tiering.dispose();
});

let sent = 0;
const send = async (events: readonly PlainEvent[]) => {
  for (let at = 0; at < events.length; at += 100)
    await log.append(
      [...Map.groupBy(events.slice(at, at + 100), (one) => Number(one.tenant.slice(1)) % PARTITIONS)].map(
        ([partition, own]) => records(partition, own),
      ),
    );
  sent += events.length;
};
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const start = (groupsMax = 10_000) =>
  startProcessors(database.pool, log, {
    now: () => FIRST + (DAYS + 2) * DAY,
    settings: { ...TEST_SETTINGS, cacheRows: 50_000, groupsMax },
  });
const verify = (more: Partial<VerifyRequest> = {}) =>
  verifyRollups(deps, { from: FIRST, to: FIRST + (DAYS + 1) * DAY, ...more }, always());

test('P3, P9: rollups of days are recounted from database and archive: what is broken by hand is found and mended beside a live owner', async () => {
  const { pool } = database;
  sent = 0;
  await Promise.all(definitions.map((one, i) => defineMeter(pool, `first_${i}`, one)));
  let running = await start();
  await send(range(0, 600).map((i) => eventOf(i)));
  await send(range(0, 4).map((i) => eventOf(1_000 + i, DAYS)));
  await send(range(0, 30).map((i) => voidOf(i * 13)));
  await committed(pool, sent);
  await running.stop();
  expect((await runArchive(tiering, always(), dayOf(FIRST + 2 * DAY))).archived).toHaveLength(2);
  await Promise.all(definitions.map((one, i) => defineMeter(pool, `later_${i}`, one)));
  running = await start();
  await (await backfillJob(pool, log, { archive: deps.archive })).run({
    id: '',
    params: {},
    signal: new AbortController().signal,
    progress: async () => undefined,
  });
  // The owner has rows of these hours in memory from here on: late ones, of archived days too.
  await send(range(2_000, 2_200).map((i) => eventOf(i)));
  await committed(pool, sent);
  const whole = await verify();
  expect(whole).toMatchObject({ identical: true, different: 0, days: DAYS + 1, left: {}, differences: [] });
  expect(whole.rows).toBeGreaterThan(4_000);
  expect(await verify({ meter: 'first_1', to: FIRST + DAY })).toMatchObject({ identical: true, days: 1 });

  const { rows: meters } = await pool.query<{ id: number; slug: string }>(
    'SELECT v.id, m.slug FROM meter_versions AS v JOIN meters AS m ON m.key = v.meter',
  );
  const idOf = (slug: string) => [...meters, ...BUILTIN_METERS].find((meter) => meter.slug === slug)?.id;
  /** One row of a meter, a live one or a backfilled one. */
  const one = (table: string, slug: string, where = 'true') =>
    `ctid = (SELECT ctid FROM ${table} AS r WHERE meter_id = ${idOf(slug)} AND ${where} ORDER BY bucket, tenant_id, group_key, shard LIMIT 1)
     AND tableoid = (SELECT tableoid FROM ${table} AS r WHERE meter_id = ${idOf(slug)} AND ${where} ORDER BY bucket, tenant_id, group_key, shard LIMIT 1)`;
  const backfilled = `shard IN (SELECT shard FROM log_offsets WHERE topic = 'backfill')`;
  // Of the first day only what late events made: nobody compares that.
  const kept = `bucket >= '2026-01-02Z'`;
  const breakages: [slug: string, statement: string][] = [
    ['first_0', `UPDATE rollups_hour SET count = count + 1 WHERE ${one('rollups_hour', 'first_0')}`],
    ['first_1', `UPDATE rollups_hour SET sum = sum + 0.000000000000000001 WHERE ${one('rollups_hour', 'first_1')}`],
    ['first_2', `UPDATE rollups_hour SET min = min - 1 WHERE ${one('rollups_hour', 'first_2')}`],
    ['first_3', `DELETE FROM rollups_minute WHERE ${one('rollups_minute', 'first_3', kept)}`],
    [
      'first_5',
      `UPDATE members_hour SET members = members || '{nobody}'::text[] WHERE ${one('members_hour', 'first_5')}`,
    ],
    [
      'first_6',
      `UPDATE rollups_hour SET last_at = bucket + interval '59:59.999' MINUTE TO SECOND WHERE ${one('rollups_hour', 'first_6')}`,
    ],
    ['first_7', `UPDATE rollups_hour SET bin_counts[1] = bin_counts[1] + 1 WHERE ${one('rollups_hour', 'first_7')}`],
    ['first_8', `UPDATE rollups_minute SET levels[1] = levels[1] + 1 WHERE ${one('rollups_minute', 'first_8', kept)}`],
    ['later_0', `UPDATE rollups_hour SET count = count + 1 WHERE ${one('rollups_hour', 'later_0', backfilled)}`],
    [
      'later_1',
      `INSERT INTO rollups_hour SELECT bucket, meter_id, shard, tenant_id, gen_random_uuid(), 1, NULL, NULL, 5 FROM rollups_hour WHERE ${one('rollups_hour', 'later_1', backfilled)}`,
    ],
    ['tokens', `UPDATE rollups_hour SET sum = 0 WHERE ${one('rollups_hour', 'tokens')}`],
  ];
  for (const [, statement] of breakages) expect((await pool.query(statement)).rowCount).toBe(1);
  const found = await verify();
  expect(found).toMatchObject({ identical: false, different: breakages.length, repaired: 0 });
  expect(found.differences.map((difference) => difference.meter).sort()).toEqual(
    breakages.map(([slug]) => slug).sort(),
  );
  expect(found.differences.find((difference) => difference.meter === 'first_3')).not.toHaveProperty('stored');
  expect(found.differences.find((difference) => difference.meter === 'later_1')).not.toHaveProperty('recounted');

  // Another owner takes what is broken into its memory, and goes on counting while it is mended.
  await running.stop();
  running = await start();
  await send(range(3_000, 3_400).map((i) => eventOf(i)));
  await committed(pool, sent);
  expect(new Set((await verify()).differences.map(({ meter }) => meter)).size).toBe(breakages.length);
  const traffic = send(range(4_000, 4_300).map((i) => eventOf(i)));
  const mended = await verify({ repair: { by: 'me', run: 'run-1' } });
  await traffic;
  await send(range(5_000, 5_200).map((i) => eventOf(i)));
  await committed(pool, sent);
  expect(mended.identical).toBe(true);
  expect(mended.repaired).toBeGreaterThanOrEqual(breakages.length);
  expect(await verify()).toMatchObject({ identical: true, different: 0 });
  const { rows: audit } = await pool.query<{ key_id: string; request_id: string; reason: string }>(
    `SELECT key_id, request_id, reason FROM audit_log WHERE action = 'rollups repair'`,
  );
  expect(audit.length).toBeGreaterThan(0);
  expect(audit[0]).toMatchObject({ key_id: 'me', request_id: 'run-1' });
  await running.stop();
}, 180_000);

test('P3: what can not be recounted is said, and left as it is: folded groups, erased tenants, days without raw events', async () => {
  const { pool } = database;
  sent = 0;
  const running = await start(2);
  await send(range(0, 200).map((i) => eventOf(i, 0)));
  await send(range(0, 4).map((i) => eventOf(1_000 + i, 1)));
  await committed(pool, sent);
  await running.stop();
  const counted = async () =>
    (await pool.query('SELECT count(*)::int AS n, sum(count)::int AS counted FROM rollups_hour')).rows[0];
  const mended = { repair: { by: 'me', run: 'run-1' } };
  const folded = await defineMeter(pool, 'folded', definitions[2] ?? { eventType: '*', aggregation: 'COUNT' });
  const more = await start(2);
  await send(range(2_000, 2_200).map((i) => eventOf(i, 0)));
  await committed(pool, sent);
  await (await backfillJob(pool, log, { archive: deps.archive, groupsMax: 2 })).run({
    id: '',
    params: {},
    signal: new AbortController().signal,
    progress: async () => undefined,
  });
  await more.stop();
  const { rows: beyond } = await pool.query<{ tenant_id: string }>(
    'SELECT DISTINCT tenant_id FROM meter_overflows WHERE meter_id = $1 ORDER BY 1',
    [folded.id],
  );
  expect(beyond.length).toBeGreaterThan(1);
  expect(await verify()).toMatchObject({ identical: true, different: 0, erased: [] });

  // Totals of a tenant with folded groups are held against its events, but nobody knows whose rows they were.
  const [{ tenant_id: one } = { tenant_id: '' }, { tenant_id: other } = { tenant_id: '' }] = beyond;
  const spoil = (tenant: string) =>
    pool.query('UPDATE rollups_hour SET count = count + 1 WHERE meter_id = $1 AND tenant_id = $2', [folded.id, tenant]);
  await spoil(one);
  const before = await counted();
  const found = await verify(mended);
  expect(found).toMatchObject({ identical: false, repaired: 0 });
  expect(new Set(found.differences.map(({ group, tenant_id: id }) => `${group} ${id}`))).toEqual(
    new Set([`null ${one}`]),
  );
  await pool.query(`INSERT INTO erasures (tenant_id, reason, requested_by) VALUES ($1, 'test', 'me')`, [one]);
  expect(await verify(mended)).toMatchObject({ identical: true, erased: [one] });
  await spoil(other);
  expect(await verify({ ...mended, tenantId: one })).toMatchObject({ identical: true });
  expect(await verify({ tenantId: other })).toMatchObject({ identical: false });

  await pool.query('DELETE FROM events');
  expect(await verify(mended)).toMatchObject({
    identical: false,
    days: 0,
    repaired: 0,
    left: { '2026-01-01': 'no_raw_events', '2026-01-02': 'no_raw_events' },
  });
  expect((await counted())?.n).toBe(before?.n);
}, 60_000);
