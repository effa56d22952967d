import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  dayOf,
  openArchiveReader,
  RECALL_STEPS,
  recallDay,
  runArchive,
  type TieringDeps,
  verifyArchive,
} from '../../tiering/index.ts';
import { always, archiver, makeTiering, NOW, runMeanwhile, TEST_TIERING } from '../support/archive.ts';
import { expectWhole, takeInDay } from '../support/archive-ledger.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { openTestLog } from '../support/processors.ts';
import { until } from '../support/server.ts';

const DAY = 86_400_000;
const FIRST = Date.UTC(2026, 0, 1);
const EVENTS = 1_200;
const SEVENTH = `${dayOf(FIRST)}-7`;
/** Where what is known of the day, in the database or the store, has just changed. */
const LEAVING = ['part-stored', 'manifest-stored', 'written', 'verified', 'checked', 'detached', 'dropped'] as const;

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let deps: TieringDeps & { root: string; dispose(): void };
const sent = new Set<string>();

beforeAll(async () => {
  database = await createTestDatabase();
  log = await openTestLog();
  deps = await makeTiering(database.pool, { settings: { ...TEST_TIERING, leaseMs: 300 } });
  await add(EVENTS);
  await runArchive(deps, always());
}, 120_000);
afterAll(async () => {
  await log.dispose();
  await database.drop();
  deps.dispose();
});

const add = (count: number) => takeInDay(database.pool, log, sent, FIRST, count);
const requireWhole = () => expectWhole(deps, sent, FIRST, FIRST + DAY);

const inDatabase = async () =>
  (await database.pool.query<{ n: number }>('SELECT count(*)::int AS n FROM events')).rows[0]?.n;
const tables = async () =>
  (
    await database.pool.query<{ relname: string }>(
      `SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(events|recall)_2' ORDER BY 1`,
    )
  ).rows.map((row) => row.relname);

/** Ends the stay, and lets the day go. */
async function release(): Promise<void> {
  const later = { ...deps, now: () => NOW + 8 * DAY };
  await until(async () => {
    const { left } = await runArchive(later, always());
    return Object.keys(left).length === 0 && (await tables()).length === 0 ? true : undefined;
  });
  expect(await inDatabase()).toBe(0);
  expect(await verifyArchive(deps, always())).toMatchObject({ days: 1, damaged: [] });
  await requireWhole();
}

/** Until a lease of somebody who was killed has ended. */
const recall = () =>
  until(() =>
    recallDay(deps, always(), dayOf(FIRST), 7).catch((error) =>
      error.code === 'archive_busy' ? undefined : Promise.reject(error),
    ),
  );

describe('P9: a day on its way back', () => {
  test.each(RECALL_STEPS.map((step) => [step]))(
    'whose process is killed at "%s" is read in one place, and comes back',
    async (step) => {
      // With and without late events of it in the database.
      if (step !== 'recall-loaded') await add(3);
      const ended = await archiver(database.url, deps.root, { recall: dayOf(FIRST), step });
      expect(ended.signal).toBe('SIGKILL');
      await requireWhole();
      await recall();
      expect(await inDatabase()).toBe(sent.size);
      await requireWhole();
      await release();
    },
    120_000,
  );

  test('with other rows than its manifest says stays where it is', async () => {
    const answers: string[] = [];
    const fault = (step: string) => {
      if (step !== 'recall-loaded') return;
      const one = 'DELETE FROM recall_20260101 WHERE request_id = (SELECT min(request_id) FROM recall_20260101)';
      answers.push(runMeanwhile(database.url, one));
    };
    await expect(recallDay({ ...deps, fault }, always(), dayOf(FIRST), 7)).rejects.toMatchObject({
      code: 'archive_damaged',
    });
    expect(answers).toEqual(['done']);
    await requireWhole();
    await recall();
    await requireWhole();
    await release();
  }, 120_000);

  test('a killed one that nobody asks for again leaves nothing behind', async () => {
    await archiver(database.url, deps.root, { recall: dayOf(FIRST), step: 'recall-loaded' });
    expect(await tables()).toEqual(['recall_20260101']);
    await until(async () => {
      await runArchive(deps, always());
      return (await tables()).length === 0 ? true : undefined;
    });
    await requireWhole();
  }, 120_000);

  test.each(LEAVING.map((step) => [step]))(
    'that is let go by an archiver which is killed at "%s" is read in one place, and goes',
    async (step) => {
      await recall();
      // Something was changed, and something came late: the day is written as a whole.
      await database.pool.query('UPDATE events SET model = $1 WHERE request_id = $2', [step, SEVENTH]);
      await add(2);
      await recallDay(deps, always(), dayOf(FIRST), 0);
      const ended = await archiver(database.url, deps.root, { step });
      expect(ended.signal).toBe('SIGKILL');
      await requireWhole();
      await release();
      const reader = openArchiveReader(deps);
      const [changed] = await reader.search({ tenantIds: null, from: FIRST, to: FIRST + DAY, requestId: SEVENTH }, 10);
      await reader.close();
      expect(changed?.data).toContain(`"model":"${step}"`);
    },
    120_000,
  );
});
