import { openSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ObjectStore } from '../../sinks/index.ts';
import {
  ARCHIVE_STEPS,
  dayOf,
  manifestKey,
  partKey,
  recallDay,
  runArchive,
  type TieringDeps,
  verifyArchive,
} from '../../tiering/index.ts';
import { always, archiver, makeTiering, runMeanwhile, TEST_TIERING } from '../support/archive.ts';
import { expectWhole, takeInDay } from '../support/archive-ledger.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { openTestLog } from '../support/processors.ts';
import { until } from '../support/server.ts';

const DAY = 86_400_000;
const FIRST = Date.UTC(2026, 0, 1);
const EVENTS = 1_200;

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let deps: TieringDeps & { root: string; dispose(): void };
let days = 0;
const sent = new Set<string>();

beforeAll(async () => {
  database = await createTestDatabase();
  log = await openTestLog();
  deps = await makeTiering(database.pool, { settings: { ...TEST_TIERING, leaseMs: 300 } });
}, 120_000);
afterAll(async () => {
  await log.dispose();
  await database.drop();
  deps.dispose();
});

/** Events of a new day, so that every test has one that is whole in the database. @returns its start */
async function newDay(count = EVENTS): Promise<number> {
  const start = FIRST + days++ * DAY;
  await addTo(start, count);
  return start;
}

const addTo = (start: number, count: number) => takeInDay(database.pool, log, sent, start, count);
const requireWhole = () => expectWhole(deps, sent, FIRST, FIRST + days * DAY);

/** Runs until nothing is left to do: a killed archiver's lease ends by itself. */
async function finish(): Promise<void> {
  await until(async () => (Object.keys((await runArchive(deps, always())).left).length === 0 ? true : undefined));
  await requireWhole();
  const { rows } = await database.pool.query('SELECT count(*)::int AS n FROM events');
  expect(rows).toEqual([{ n: 0 }]);
  const { rows: tables } = await database.pool.query(`SELECT relname FROM pg_class WHERE relname LIKE 'events\\_2%'`);
  expect(tables).toEqual([]);
  expect(await verifyArchive(deps, always())).toMatchObject({ days, damaged: [], frozen: [] });
}

const objectPath = (key: string) => join(deps.root, 'objects', key);

/** The store, but for the first time that `key` is written. */
function storeThat(
  key: string,
  first: (put: () => ReturnType<ObjectStore['put']>) => ReturnType<ObjectStore['put']>,
): ObjectStore {
  const { store } = deps;
  let isFirst = true;
  const put: ObjectStore['put'] = (...request) => {
    if (request[0] !== key || !isFirst) return store.put(...request);
    isFirst = false;
    return first(() => store.put(...request));
  };
  return new Proxy(store, {
    get: (_, name) => {
      const member: unknown = name === 'put' ? put : Reflect.get(store, name);
      return typeof member === 'function' ? member.bind(store) : member;
    },
  });
}

describe('P9: an archiver', () => {
  test.each(ARCHIVE_STEPS.map((step) => [step]))(
    'that is killed at "%s" loses and doubles nothing, and the next one ends its work',
    async (step) => {
      const start = await newDay();
      // A day that is archived already gets late events: both ways through every step.
      if (days > 1) await addTo(start - DAY, 3);
      const ended = await archiver(database.url, deps.root, { step, count: days % 2 === 0 ? 2 : 1 });
      expect(ended.signal).toBe('SIGKILL');
      await requireWhole();
      await finish();
    },
    120_000,
  );

  test('beside another one archives each day once', async () => {
    await newDay();
    await newDay();
    const other = { ...deps, scratch: `${deps.scratch}-2` };
    const results = await Promise.all([runArchive(deps, always()), runArchive(other, always())]);
    expect(results.flatMap((result) => result.archived).length).toBeLessThanOrEqual(2);
    await finish();
  }, 120_000);

  test('whose lease is taken away again and again changes nothing that it no longer owns', async () => {
    await newDay();
    const zombies = [1, 2, 3].map((i) => ({
      ...deps,
      scratch: `${deps.scratch}-z${i}`,
      settings: { ...deps.settings, leaseMs: 1 },
    }));
    await Promise.all(zombies.map((one) => runArchive(one, always())));
    await requireWhole();
    await finish();
  }, 120_000);

  test.each([
    ['before', 'was changed meanwhile'],
    ['after', 'another archiver has'],
  ])(
    'that falls asleep %s it stores the manifest, and loses its lease, changes nothing when it wakes',
    async (when, reason) => {
      const start = await newDay();
      const store = storeThat(manifestKey(dayOf(start)), async (put) => {
        const early = when === 'after' ? await put() : undefined;
        await database.pool.query(`UPDATE archive_days SET lease_until = '-infinity'`);
        expect(await runArchive({ ...deps, scratch: `${deps.scratch}-2` }, always())).toMatchObject({ left: {} });
        return early ?? put();
      });
      const { left } = await runArchive({ ...deps, store }, always());
      expect(left).toEqual({ [dayOf(start)]: expect.stringContaining(reason) });
      await requireWhole();
      await finish();
    },
    120_000,
  );

  test('whose rows are changed after they were read back finds out before anything is dropped', async () => {
    const start = await newDay(60);
    const store = storeThat(manifestKey(dayOf(start)), async (put) => {
      const stored = await put();
      await database.pool.query(
        `UPDATE events SET tokens_consumed = tokens_consumed + 1 WHERE request_id = (SELECT min(request_id) FROM events)`,
      );
      return stored;
    });
    const { left } = await runArchive({ ...deps, store }, always());
    expect(left[dayOf(start)]).toContain('nothing was dropped');
    const { rows } = await database.pool.query('SELECT count(*)::int AS n FROM events');
    expect(rows).toEqual([{ n: 60 }]);
    await finish();
  }, 120_000);

  test('that wrote other rows than the database sent finds out before anything is dropped', async () => {
    const start = await newDay(60);
    await finish();
    const other = readFileSync(objectPath(partKey(dayOf(start), 0)));
    const next = await newDay(60);
    const swap = (step: string) => {
      if (step !== 'part-written') return;
      const folder = readdirSync(deps.scratch).find((name) => name.startsWith('day-')) ?? '';
      writeFileSync(join(deps.scratch, folder, 'part.parquet'), other);
    };
    const { left } = await runArchive({ ...deps, fault: swap }, always());
    expect(left[dayOf(next)]).toContain(partKey(dayOf(next), 0));
    await requireWhole();
    await finish();
  }, 120_000);

  test('keeps writers out of what it has counted until it has left', async () => {
    await newDay(60);
    const answers: string[] = [];
    const write = (step: string) => {
      if (step !== 'checked') return;
      answers.push(runMeanwhile(database.url, 'INSERT INTO events SELECT * FROM events LIMIT 1'));
    };
    expect(await runArchive({ ...deps, fault: write }, always())).toMatchObject({ left: {} });
    // lock_not_available
    expect(answers).toEqual(['55P03']);
    await finish();
  }, 120_000);

  test('takes in what comes while it works, once', async () => {
    const start = await newDay();
    const [first] = await Promise.all([runArchive(deps, always()), addTo(start, 300).then(() => addTo(start, 300))]);
    expect(first.archived.length).toBeLessThanOrEqual(1);
    await requireWhole();
    await finish();
  }, 120_000);

  test('without room on the disk leaves the day in the database', async () => {
    const start = await newDay();
    // Blocks of 512 bytes: less than a spooled file. The signal is ignored, so that writes fail as on a full disk.
    const ended = await archiver(database.url, deps.root, {}, `trap '' XFSZ; ulimit -f 60;`);
    expect(ended.output).toContain(`"left":{"${dayOf(start)}"`);
    const { rows } = await database.pool.query('SELECT count(*)::int AS n FROM events');
    expect(rows).toEqual([{ n: EVENTS }]);
    await finish();
  }, 120_000);

  test('is not confused by a clock that jumps', async () => {
    await newDay(50);
    const back = { ...deps, now: () => FIRST - 400 * DAY };
    expect(await runArchive(back, always())).toMatchObject({ archived: [] });
    expect(await runArchive(back, always(), '2030-01-01')).toMatchObject({ archived: [] });
    await requireWhole();
    const ahead = { ...deps, now: () => FIRST + 40_000 * DAY };
    expect((await runArchive(ahead, always())).archived).toHaveLength(1);
    await finish();
  }, 120_000);

  test('whose clock goes back a day and then ahead between two runs takes each day once, and lets none go early', async () => {
    const start = await newDay(40);
    await newDay(40);
    await addTo(start + DAY, 10);
    const at = (day: number) => ({ ...deps, now: () => start + (day + TEST_TIERING.hotDays) * DAY + DAY / 2 });
    const run = async (day: number) => {
      const { archived, released, left } = await runArchive(at(day), always());
      await requireWhole();
      return { archived, released, left };
    };
    const [first, second] = [dayOf(start), dayOf(start + DAY)];
    expect(await run(1)).toEqual({ archived: [first], released: [], left: {} });
    expect(await run(0)).toEqual({ archived: [], released: [], left: {} });
    // Brought back by the slow clock, for two days: it says when that is over.
    await recallDay(at(0), always(), first, 2);
    await addTo(start, 3);
    for (const day of [0, 1]) expect(await run(day)).toEqual({ archived: [], released: [], left: {} });
    expect(await run(2)).toEqual({ archived: [first, second], released: [first], left: {} });
    // What comes late for a day that the slow clock takes for hot waits for the right one.
    await addTo(start + DAY, 5);
    expect(await run(0)).toEqual({ archived: [], released: [], left: {} });
    expect(await run(2)).toEqual({ archived: [second], released: [], left: {} });
    await finish();
  }, 120_000);

  test('finds a flipped bit, names the file, and drops nothing', async () => {
    const start = await newDay(100);
    await finish();
    const key = `events/date=${dayOf(start)}/part-0.parquet`;
    const whole = readFileSync(objectPath(key));
    const file = openSync(objectPath(key), 'r+');
    const place = Math.floor(whole.length / 2);
    writeSync(file, Buffer.from([(whole[place] ?? 0) ^ 4]), 0, 1, place);
    const { damaged } = await verifyArchive(deps, always());
    expect(damaged).toHaveLength(1);
    expect(damaged[0]).toContain(key);
    writeSync(file, Buffer.from([whole[place] ?? 0]), 0, 1, place);
    expect(await verifyArchive(deps, always())).toMatchObject({ damaged: [] });
  }, 120_000);

  test('finds damage before it drops, and writes the day again', async () => {
    const start = await newDay();
    await archiver(database.url, deps.root, { step: 'manifest-stored' });
    const key = `events/date=${dayOf(start)}/part-1.parquet`;
    const file = openSync(objectPath(key), 'r+');
    writeSync(file, Buffer.from('XXXX'), 0, 4, 1_000);
    await requireWhole();
    await finish();
  }, 120_000);

  test('writes a lost manifest again from the copy in the database, and says when a file is missing', async () => {
    const start = await newDay(100);
    await finish();
    const folder = `events/date=${dayOf(start)}`;
    rmSync(objectPath(`${folder}/manifest.json`));
    expect((await verifyArchive(deps, always())).damaged[0]).toContain(`${folder}/manifest.json`);
    await addTo(start, 1);
    await finish();
    const part = readFileSync(objectPath(`${folder}/part-0.parquet`));
    rmSync(objectPath(`${folder}/part-0.parquet`));
    expect((await verifyArchive(deps, always())).damaged[0]).toContain(`${folder}/part-0.parquet is missing`);
    await deps.store.put(`${folder}/part-0.parquet`, part);
    await finish();
  }, 120_000);
});
