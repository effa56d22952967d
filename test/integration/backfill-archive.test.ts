import { CopyObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ArchivedEvents } from '../../processors/index.ts';
import type { Job, Meter, PlainEvent } from '../../schemas/index.ts';
import { openMeterCatalogue, openS3Store } from '../../sinks/index.ts';
import {
  type ArchiveReader,
  type ArchiveStep,
  archivedEventsOf,
  dayOf,
  openArchiveReader,
  restoreDay,
  runArchive,
} from '../../tiering/index.ts';
import { always, makeTiering, TEST_TIERING } from '../support/archive.ts';
import { answersOf, backfillJob, defineMeter } from '../support/meters.ts';
import { type Moto, startMoto } from '../support/moto.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { DAY, DAYS, definitions, eventOf, FIRST, voidOf } from '../support/varied-events.ts';

const PARTITIONS = 2;
const NOW = FIRST + (DAYS + 2) * DAY;

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let tiering: Awaited<ReturnType<typeof makeTiering>>;
let reader: ArchiveReader;
/** stops the archiver when it has detached the second day's chunk */
let crash: AbortController | undefined;
let detached = 0;
const fault = (step: ArchiveStep) => {
  if (step !== 'detached' || crash === undefined || ++detached < 2) return;
  crash.abort();
  throw new Error(`stopped at ${step}`);
};

const setUp = async (more: Parameters<typeof makeTiering>[1] = {}) => {
  database = await createTestDatabase();
  log = await openTestLog(PARTITIONS);
  tiering = await makeTiering(database.pool, { fault, ...more });
  reader = openArchiveReader(tiering);
};
const tearDown = async () => {
  await reader.close();
  await log.dispose();
  await database.drop();
  tiering.dispose();
};

const send = async (events: readonly PlainEvent[]) => {
  for (let at = 0; at < events.length; at += 100)
    await log.append(
      [...Map.groupBy(events.slice(at, at + 100), (one) => Number(one.tenant.slice(1)) % PARTITIONS)].map(
        ([partition, own]) => records(partition, own),
      ),
    );
};
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const start = () =>
  startProcessors(database.pool, log, { now: () => NOW, settings: { ...TEST_SETTINGS, cacheRows: 400 } });

const define = (set: string) =>
  Promise.all(definitions.map((one, i) => defineMeter(database.pool, `${set}_${i}`, one)));

async function answers(meter: Meter, days = DAYS, from = FIRST): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const windowSize of [...(from === FIRST ? [] : ['MINUTE' as const]), 'HOUR', 'DAY', undefined] as const)
    all.push(...(await answersOf(database.pool, meter, [from, FIRST + days * DAY], windowSize)));
  return all;
}

const run = (job: Job, signal = new AbortController().signal) =>
  job.run({ id: '', params: {}, signal, progress: async () => undefined });

describe('a meter that is younger than the archive', () => {
  // The minutes of the first day are gone, of the others they stay.
  beforeEach(() => setUp({ settings: { ...TEST_TIERING, hotDays: 364 } }));
  afterEach(tearDown);

  test('P2, P3, P9: counts archived days too, each event once, while days move, events come late and the job is ended again and again', async () => {
    const { pool } = database;
    const first = await define('first');
    let running = await start();
    await send(range(0, 2_000).map((i) => eventOf(i)));
    // The last hours are folded when something later comes.
    await send([eventOf(2_000, DAYS), eventOf(2_001, DAYS), eventOf(2_002, DAYS), eventOf(2_003, DAYS)]);
    await send(range(0, 40).map((i) => voidOf(i * 13)));
    await committed(pool, 2_044);
    await running.stop();
    // A late event brings a detached chunk back before it is dropped: its rows stand in the archive and the database.
    crash = new AbortController();
    const dying = { ...always(), signal: crash.signal };
    await expect(runArchive(tiering, dying, dayOf(FIRST + 2 * DAY))).rejects.toThrow('stopped at detached');
    crash = undefined;
    running = await start();
    await send(range(3_000, 3_100).map((i) => eventOf(i, i % 2)));
    await committed(pool, 2_144);
    const { rows: twice } = await pool.query<{ n: number }>(
      'SELECT count(*)::int AS n FROM events AS e JOIN archive_positions AS p USING (shard) WHERE p.day = e."timestamp"::date AND e.log_offset < p.next',
    );
    expect(twice[0]?.n).toBeGreaterThan(300);
    const later = await define('later');
    const traffic = send(range(4_000, 4_400).map((i) => eventOf(i)));

    const archived = archivedEventsOf(reader);
    const archive = async (days: number) => {
      expect((await runArchive(tiering, always(), dayOf(FIRST + days * DAY))).left).toEqual({});
    };
    let stop = new AbortController();
    let opened = 0;
    const moved = new Set<string>();
    const once = (name: string) => !moved.has(name) && moved.add(name) !== undefined;
    const dayNumber = (day: number) => (day - FIRST) / DAY;
    const moving: ArchivedEvents = {
      days: (client) => archived.days(client),
      // Archived after its hours were listed: the list is of another place.
      async versionOf(client, day) {
        const version = await archived.versionOf(client, day);
        if (dayNumber(day) === 2 && once('day 2')) await archive(3);
        return version;
      },
      // Archived, or with a further file, after it was opened: what was read is not all, or not in one place.
      async open(client, day) {
        const found = await archived.open(client, day);
        if (dayNumber(day) === 0 && once('late')) await archive(1);
        if (dayNumber(day) === 3 && once('day 3')) await archive(4);
        if (++opened % 3 === 0) stop.abort();
        return found;
      },
    };
    const job = await backfillJob(pool, log, { archive: moving, rowsMax: 150, waitMs: 20_000 });
    for (let runs = 0; ; runs++) {
      stop = new AbortController();
      try {
        const result = await run(job, stop.signal);
        expect(result.waiting).toBeUndefined();
        expect(runs).toBeGreaterThan(3);
        break;
      } catch (error) {
        if (!stop.signal.aborted) throw error;
      }
    }
    expect([...moved].sort()).toEqual(['day 2', 'day 3', 'late']);
    await traffic;
    await committed(pool, 2_544);
    await running.stop();
    for (const [i, meter] of first.entries())
      for (const from of [FIRST, FIRST + DAY])
        expect([meter.aggregation, await answers(later[i] ?? meter, DAYS, from)]).toEqual([
          meter.aggregation,
          await answers(meter, DAYS, from),
        ]);
    // Minutes of archived days are gone, of old meters and of new ones.
    const { rows } = await pool.query<{ n: number }>(
      'SELECT count(*)::int AS n FROM rollups_minute AS r JOIN archived_minutes AS m ON m.day = r.bucket::date',
    );
    expect(rows).toEqual([{ n: 0 }]);
    expect((await pool.query('SELECT FROM archived_minutes')).rowCount).toBe(1);
  }, 180_000);

  test('P3, P7: several meters of one day read its files once, and nothing of a tenant that was purged', async () => {
    const { pool } = database;
    let running = await start();
    await send(range(0, 400).map((i) => eventOf(i, 0)));
    await committed(pool, 400);
    await running.stop();
    await runArchive(tiering, always());
    // Files of the archive hold all tenants: a purge does not wait until they are written anew.
    await pool.query(`UPDATE tenants SET status = 'deleted', purged_at = now() WHERE customer_id = 't1'`);
    const later = await define('later');
    running = await start();
    const archived = archivedEventsOf(reader);
    let reads = 0;
    const counting: ArchivedEvents = {
      ...archived,
      open: async (client, day) => {
        const found = await archived.open(client, day);
        if (found !== undefined) reads++;
        return found;
      },
    };
    const result = await run(await backfillJob(pool, log, { archive: counting, rowsMax: 1e6 }));
    await running.stop();
    expect(result).toMatchObject({ removed: 0 });
    expect(result.waiting).toBeUndefined();
    expect(reads).toBe(1);
    const { rows } = await pool.query<{ customer_id: string }>(
      'SELECT DISTINCT customer_id FROM rollups_hour AS r JOIN tenants AS t ON t.id = r.tenant_id WHERE meter_id = $1 ORDER BY 1',
      [later[0]?.id],
    );
    expect(rows.map((row) => row.customer_id)).toEqual(['t0', 't2', 't3']);
  }, 60_000);
});

describe('P3, P8: days in a cold storage class', () => {
  let moto: Moto;
  beforeAll(async () => {
    moto = await startMoto();
    await setUp({
      store: openS3Store({
        bucket: moto.bucket,
        endpoint: moto.endpoint,
        region: 'us-east-1',
        requestTimeoutMs: 5_000,
      }),
    });
  }, 300_000);
  afterAll(async () => {
    await tearDown();
    tiering.store.close();
    await moto.stop();
  });

  test('are left out, said, and counted when they are restored', async () => {
    const { pool } = database;
    const first = await define('first');
    let running = await start();
    await send(range(0, 600).map((i) => eventOf(i, i % 3)));
    await send([eventOf(600, 4), eventOf(601, 4), eventOf(602, 4), eventOf(603, 4)]);
    await committed(pool, 604);
    await running.stop();
    await runArchive(tiering, always(), dayOf(FIRST + 3 * DAY));
    const cold = '2026-01-02';
    const { rows } = await pool.query<{ manifest: string }>('SELECT manifest FROM archive_days WHERE day = $1', [cold]);
    for (const { key } of JSON.parse(rows[0]?.manifest ?? '').files)
      await moto.client.send(
        new CopyObjectCommand({
          Bucket: moto.bucket,
          Key: key,
          CopySource: `${moto.bucket}/${key}`,
          StorageClass: 'GLACIER',
        }),
      );
    const later = await define('later');
    running = await start();
    const job = await backfillJob(pool, log, { archive: archivedEventsOf(reader) });
    const said = { left: { [cold]: 'archive_frozen' }, restore: [`/api/v1/archives/${cold}/restore`] };
    const result = await run(job);
    expect(result).toMatchObject({ ...said, waiting: later.map((one) => one.slug).sort() });
    const entry = await openMeterCatalogue(pool, []).find('later_0');
    expect(entry).toMatchObject({ complete: false, missingDays: [cold] });
    // What can be counted is.
    const meter = later[0] ?? fail();
    const [hours, all] = [await answers(meter, 4), await answers(first[0] ?? meter, 4)];
    expect(hours).not.toEqual(all);
    // Again: nothing is counted twice, and the day is still said.
    expect(await run(job)).toMatchObject({ ...said, events: 0 });
    await restoreDay(tiering, cold, { days: 1, speed: 'Expedited' });
    const end = await run(job);
    expect([end.left, end.waiting]).toEqual([undefined, undefined]);
    await running.stop();
    expect(await openMeterCatalogue(pool, []).find('later_0')).toMatchObject({ complete: true, missingDays: [] });
    for (const [i, one] of first.entries())
      expect([one.aggregation, await answers(later[i] ?? one)]).toEqual([one.aggregation, await answers(one)]);
  }, 120_000);
});

const fail = (): never => {
  throw new Error('no such meter');
};
