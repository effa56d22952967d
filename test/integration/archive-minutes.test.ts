import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BUILTIN_METERS } from '../../metering/index.ts';
import { type ArchivedEvents, bringMinutesBack, verifyRollups } from '../../processors/index.ts';
import type { Meter, PlainEvent } from '../../schemas/index.ts';
import {
  type ArchiveReader,
  archivedEventsOf,
  dayOf,
  eraseEvents,
  openArchiveReader,
  recallDay,
  runArchive,
} from '../../tiering/index.ts';
import { always, makeTiering, NOW } from '../support/archive.ts';
import { answersOf, backfillJob, defineMeter } from '../support/meters.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, openTestLog, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { DAY, definitions, eventOf, FIRST, voidOf } from '../support/varied-events.ts';

const PARTITIONS = 2;
const WHICH = dayOf(FIRST);
const EVENTS = 500;

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let tiering: Awaited<ReturnType<typeof makeTiering>>;
let reader: ArchiveReader;
let sent = 0;
/** counted live, and by a backfill */
let meters: Meter[];
/** by MINUTE, as it was before the day was archived */
let before: unknown[];

const send = async (events: readonly PlainEvent[]) => {
  sent += events.length;
  for (let at = 0; at < events.length; at += 100)
    await log.append(
      [...Map.groupBy(events.slice(at, at + 100), (one) => Number(one.tenant.slice(1)) % PARTITIONS)].map(
        ([partition, own]) => records(partition, own),
      ),
    );
};
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const start = () => startProcessors(database.pool, log, { settings: { ...TEST_SETTINGS, cacheRows: 400 } });
const takeIn = async (events: readonly PlainEvent[]) => {
  const running = await start();
  await send(events);
  await committed(database.pool, sent);
  await running.stop();
};
const recount = () => ({
  pool: database.pool,
  engine: tiering.engine,
  archive: archivedEventsOf(reader),
  meters: BUILTIN_METERS,
  groupsMax: 10_000,
  rowsMax: 1_000,
});
const answers = async (windowSize: 'MINUTE' | 'HOUR', some = meters): Promise<unknown[]> => {
  const all: unknown[] = [];
  for (const meter of some) all.push(...(await answersOf(database.pool, meter, [FIRST, FIRST + DAY], windowSize)));
  return all;
};
const recall = (days = 14) =>
  recallDay(
    { ...tiering, bringMinutesBack: (day, signal) => bringMinutesBack(recount(), day, signal) },
    always(),
    WHICH,
    days,
  );
const verified = () => verifyRollups(recount(), { from: FIRST, to: FIRST + DAY }, always());
const minutes = async () =>
  (
    await database.pool.query<{ n: number }>(
      'SELECT (SELECT count(*) FROM rollups_minute WHERE bucket < $1)::int + (SELECT count(*) FROM members_minute WHERE bucket < $1)::int AS n',
      [new Date(FIRST + DAY)],
    )
  ).rows[0]?.n;
const later = () => ({ ...tiering, now: () => NOW + 15 * DAY });

beforeEach(async () => {
  sent = 0;
  database = await createTestDatabase();
  log = await openTestLog(PARTITIONS);
  tiering = await makeTiering(database.pool);
  reader = openArchiveReader(tiering);
  const live = await Promise.all(definitions.map((one, i) => defineMeter(database.pool, `live_${i}`, one)));
  await takeIn([
    ...range(0, EVENTS).map((i) => eventOf(i, 0)),
    // The day's hours are folded when something later comes.
    ...range(EVENTS, EVENTS + 4).map((i) => eventOf(i, 3)),
    ...range(0, 10).map((i) => voidOf(i * 13)),
  ]);
  const young = await Promise.all(definitions.map((one, i) => defineMeter(database.pool, `young_${i}`, one)));
  const running = await start();
  const job = await backfillJob(database.pool, log, { waitMs: 20_000 });
  await job.run({ id: '', params: {}, ...always() });
  await running.stop();
  meters = [...live, ...young];
  before = await answers('MINUTE');
  expect((await runArchive(tiering, always(), dayOf(FIRST + DAY))).minutes).toEqual([WHICH]);
  expect(await minutes()).toBe(0);
  await expect(answers('MINUTE')).rejects.toMatchObject({ code: 'window_too_fine' });
}, 120_000);
afterEach(async () => {
  await reader.close();
  await log.dispose();
  await database.drop();
  tiering.dispose();
});

describe('P3: minutes of a day of the archive', () => {
  test('come back with it, as they were, stay as long as it does, and leave with it', async () => {
    // What comes late to a day without minutes has some of its own.
    const late = range(600, 603).map((i) => eventOf(i, 0));
    await takeIn(late);
    const hours = await answers('HOUR');
    expect(await recall()).toMatchObject({ rows: EVENTS + 10, minutes: true });
    expect(await verified()).toMatchObject({ identical: true, different: 0 });
    // Without what came late they are as they were.
    await takeIn(late.map((_, i) => voidOf(600 + i)));
    expect(await answers('MINUTE')).toEqual(before);
    expect(await answers('HOUR')).not.toEqual(hours);
    await runArchive(tiering, always(), dayOf(FIRST + DAY));
    expect(await answers('MINUTE')).toEqual(before);
    const all = await answers('HOUR');
    expect(await runArchive(later(), always(), dayOf(FIRST + DAY))).toMatchObject({
      released: [WHICH],
      minutes: [WHICH],
    });
    expect(await minutes()).toBe(0);
    await expect(answers('MINUTE')).rejects.toMatchObject({ code: 'window_too_fine' });
    expect(await answers('HOUR')).toEqual(all);
  }, 120_000);

  test('are whole whatever comes, is withdrawn or is counted anew while they are counted', async () => {
    const archived = archivedEventsOf(reader);
    let opened = 0;
    let late: Meter | undefined;
    const archive: ArchivedEvents = {
      ...archived,
      // Parts of the day before this one are written, and those after it are not.
      async open(client, day) {
        opened++;
        if (opened === 4) await takeIn([...range(700, 710).map((i) => eventOf(i, 0)), ...range(20, 30).map(voidOf)]);
        if (opened === 6) {
          late = await defineMeter(database.pool, 'late', definitions[0] ?? fail());
          const running = await start();
          const job = await backfillJob(database.pool, log, { waitMs: 20_000 });
          await job.run({ id: '', params: {}, ...always() });
          await running.stop();
        }
        return archived.open(client, day);
      },
    };
    const deps = { ...recount(), archive, rowsMax: 500 };
    const bring = (day: number, signal: AbortSignal) => bringMinutesBack(deps, day, signal);
    expect(await recallDay({ ...tiering, bringMinutesBack: bring }, always(), WHICH, 14)).toMatchObject({
      minutes: true,
    });
    expect(opened).toBeGreaterThan(10);
    expect(await verified()).toMatchObject({ identical: true, different: 0 });
    expect(await answers('MINUTE', [late ?? fail()])).toEqual(await answers('MINUTE', meters.slice(0, 1)));
  }, 120_000);

  test('stay away where somebody was erased from its raw events: hours know more', async () => {
    const { rows } = await database.pool.query<{ id: string }>(`SELECT id FROM tenants WHERE customer_id = 't1'`);
    await eraseEvents(tiering, always(), { tenantId: rows[0]?.id ?? '', userId: 'u1', reason: 'asked', by: 'test' });
    const hours = await answers('HOUR');
    expect(await recall()).toMatchObject({ minutes: false });
    await expect(answers('MINUTE')).rejects.toMatchObject({ code: 'window_too_fine' });
    expect(await answers('HOUR')).toEqual(hours);
  }, 120_000);

  test('may be away: an event of a recalled day is withdrawn all the same', async () => {
    await recallDay(tiering, always(), WHICH, 14);
    await takeIn([voidOf(1), voidOf(2)]);
    const { rows } = await database.pool.query('SELECT reason FROM dead_letters');
    expect(rows).toEqual([]);
    expect(await verified()).toMatchObject({ identical: true, different: 0 });
    // Asked for again it brings them, without what was withdrawn meanwhile.
    expect(await recall()).toMatchObject({ minutes: true });
    expect(await verified()).toMatchObject({ identical: true, different: 0 });
    expect(await answers('MINUTE')).not.toEqual(before);
  }, 120_000);
});

const fail = (): never => {
  throw new Error('no such definition');
};
