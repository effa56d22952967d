import pino from 'pino';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { createHistoryJob, type JobRunner, openJobQueue, startJobs } from '../../jobs/index.ts';
import { requestScheduled } from '../../jobs/queue.ts';
import type { Job, JobContext } from '../../schemas/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { until } from '../support/server.ts';

let database: TestDatabase;
const runners: JobRunner[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
});
afterEach(async () => {
  await Promise.all(runners.splice(0).map((runner) => runner.stop()));
  await database.pool.query('DELETE FROM job_runs');
});
afterAll(() => database.drop());

const queueOf = (...names: string[]) => openJobQueue(database.pool, new Set(names));
function startRunner(job: Job): JobRunner {
  const runner = startJobs({ pool: database.pool, jobs: [job], logger: pino({ level: 'silent' }), pollMs: 10 });
  runners.push(runner);
  return runner;
}
/** A job that ends when it is told to. */
function heldJob() {
  const started: JobContext[] = [];
  const release: ((result: Record<string, unknown>) => void)[] = [];
  const job: Job = {
    name: 'held',
    run: (context) => {
      started.push(context);
      return new Promise((resolve, reject) => {
        release.push(resolve);
        context.signal.addEventListener('abort', () => reject(context.signal.reason));
      });
    },
  };
  return { job, started, release };
}
const ended = (id: string) =>
  until(async () => {
    const run = await queueOf('any').find(id);
    return run?.ended_at ? run : undefined;
  });

test('a request twice is one run; other params are another; an unknown job is refused', async () => {
  const queue = queueOf('held');
  const first = await queue.request('held', { day: '2026-01-01' });
  const twice = await Promise.all([1, 2, 3].map(() => queue.request('held', { day: '2026-01-01' })));
  expect(new Set(twice.map((run) => run.id))).toEqual(new Set([first.id]));
  expect((await queue.request('held', { day: '2026-01-02' })).id).not.toBe(first.id);
  await expect(queue.request('other', {})).rejects.toMatchObject({ code: 'unknown_job' });
});

test('a job runs once at a time over all processes, and every run is run', async () => {
  const queue = queueOf('count');
  let atOnce = 0;
  let most = 0;
  let total = 0;
  const job: Job = {
    name: 'count',
    run: async ({ progress }) => {
      atOnce++;
      most = Math.max(most, atOnce);
      await progress({ at: 1 });
      total++;
      atOnce--;
      return { total };
    },
  };
  startRunner(job);
  startRunner(job);
  startRunner(job);
  const runs = await Promise.all(Array.from({ length: 12 }, (_, i) => queue.request('count', { i })));
  const all = await Promise.all(runs.map((run) => ended(run.id)));
  expect(all.map((run) => [run.status, run.attempt, run.progress])).toEqual(
    runs.map(() => ['succeeded', 1, { at: 1 }]),
  );
  expect([most, total]).toEqual([1, 12]);
});

test('a run whose process is gone is taken up by another, and the zombie records nothing', async () => {
  const { job, started, release } = heldJob();
  startRunner(job);
  const { id } = await queueOf('held').request('held', {});
  await until(async () => started[0]);
  // The lease runs out, as it does when its process hangs: another process takes the run.
  await database.pool.query(
    "UPDATE job_runs SET lease_until = now() - interval '1 second', lease_owner = gen_random_uuid()",
  );
  startRunner(job);
  const second = await until(async () => started[1]);
  expect(second.id).toBe(id);
  release[0]?.({ by: 'zombie' });
  await started[0]?.progress({ by: 'zombie' });
  expect(started[0]?.signal.aborted).toBe(true);
  release[1]?.({ by: 'heir' });
  expect(await ended(id)).toMatchObject({ status: 'succeeded', result: { by: 'heir' }, attempt: 2, progress: null });
});

test('a run that ends its process again and again is given up', async () => {
  const { job } = heldJob();
  await queueOf('held').request('held', {});
  await database.pool.query(
    "UPDATE job_runs SET status = 'running', attempt = 10, lease_owner = gen_random_uuid(), lease_until = now() - interval '1 second'",
  );
  startRunner(job);
  const [run] = await until(async () => {
    const runs = await queueOf('held').list({ limit: 1 });
    return runs[0]?.status === 'failed' ? runs : undefined;
  });
  expect(run?.error).toMatch(/10 times/);
});

test('a passing failure is tried again later, any other is recorded in words', async () => {
  const fails: Job = {
    name: 'fails',
    run: async ({ params }) => {
      throw params.passing === true
        ? Object.assign(new Error('the connection is gone'), { code: '57P01' })
        : new Error('no such bucket');
    },
  };
  startRunner(fails);
  const queue = queueOf('fails');
  const { id } = await queue.request('fails', {});
  expect(await ended(id)).toMatchObject({ status: 'failed', error: 'Error: no such bucket' });
  const passing = await queue.request('fails', { passing: true });
  const waiting = await until(async () => {
    const run = await queue.find(passing.id);
    return run?.attempt === 1 && run.status === 'queued' ? run : undefined;
  });
  expect(waiting.error).toMatch(/connection is gone/);
});

test('P14: stopping asks runs to end and puts them back at once', async () => {
  const { job, started } = heldJob();
  const runner = startRunner(job);
  const { id } = await queueOf('held').request('held', {});
  await until(async () => started[0]);
  await runner.stop();
  expect(await queueOf('held').find(id)).toMatchObject({ status: 'queued', error: null });
});

test('a scheduled minute runs once however many processes name it', async () => {
  const minute = new Date(1_700_000_040_000);
  await Promise.all([1, 2, 3].map(() => requestScheduled(database.pool, 'count', minute)));
  const runs = await queueOf('count').list({ limit: 10 });
  expect(runs).toHaveLength(1);
  const job: Job = { name: 'count', run: async () => ({}) };
  startRunner(job);
  await ended(runs[0]?.id ?? '');
  await requestScheduled(database.pool, 'count', minute);
  expect(await queueOf('count').list({ limit: 10 })).toHaveLength(1);
});

test('a scheduled run is late, not lost, where its process was held up at its time', async () => {
  const second = new Date(Date.now() + 2_000).getUTCSeconds();
  startRunner({ name: 'count', schedule: `${second} * * * * *`, run: async () => ({}) });
  // Nothing of this process runs until 3 seconds after that time.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5_000);
  await until(async () => (await queueOf('count').list({ limit: 1 }))[0]);
});

test('history keeps what it is told to, and a list pages without gaps', async () => {
  const queue = queueOf('count');
  for (let i = 0; i < 5; i++) await queue.request('count', { i });
  const seen: string[] = [];
  for (let before: { createdAt: string; id: string } | undefined; ; ) {
    const [run] = await queue.list({ limit: 1, ...(before === undefined ? {} : { before }) });
    if (run === undefined) break;
    seen.push(run.id);
    before = { createdAt: run.created_at, id: run.id };
  }
  expect(new Set(seen).size).toBe(5);
  expect(seen).toHaveLength(5);
  await database.pool.query(
    "UPDATE job_runs SET status = 'failed', ended_at = now() - make_interval(days => CASE WHEN (params->>'i')::int < 3 THEN 91 ELSE 1 END)",
  );
  const context: JobContext = {
    id: '',
    params: {},
    signal: new AbortController().signal,
    progress: async () => undefined,
  };
  expect(await createHistoryJob(database.pool, 90).run(context)).toEqual({ deleted: 3 });
});
