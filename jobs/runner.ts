import { randomUUID } from 'node:crypto';
import { type ScheduledTask, schedule } from 'node-cron';
import type { Pool } from 'pg';
import { type Job, TidemarkError } from '../schemas/index.ts';
import { isTransient } from '../sinks/index.ts';
import { endRun, LEASE_SECONDS, putBackRun, renewRun, reviveLost, takeRun } from './lease.ts';
import { type RunRow, requestScheduled } from './queue.ts';

/** A run that fails for a passing reason is tried again after these seconds. */
const RETRY_SECONDS = [1, 5, 30, 120, 600];
/** A stop waits this long for runs to notice (P14); what is still under way then keeps its lease and is taken up by another. */
const STOP_WITHIN_MS = 5_000;

export interface JobRunnerDeps {
  pool: Pool;
  jobs: readonly Job[];
  logger: JobLogger;
  /** how often to look for due runs */
  pollMs?: number;
  /** most runs at once in this process */
  concurrency?: number;
}

/** What pino offers, as far as it is used here. */
export interface JobLogger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface JobRunner {
  /** Ends the schedule, asks runs to end, and puts them back into the queue. */
  stop(): Promise<void>;
}

/** Runs jobs as their schedule and the queue say; any number of processes may. */
export function startJobs({ pool, jobs, logger, pollMs = 500, concurrency = 4 }: JobRunnerDeps): JobRunner {
  const byName = new Map(jobs.map((job) => [job.name, job]));
  const underWay = new Map<string, { stop: AbortController; done: Promise<void> }>();
  const tasks: ScheduledTask[] = [];
  let stopping = false;

  for (const job of jobs)
    if (job.schedule !== undefined)
      tasks.push(
        schedule(
          job.schedule,
          async ({ date }) => {
            const minute = new Date(Math.floor(date.getTime() / 60_000) * 60_000);
            await requestScheduled(pool, job.name, minute).catch((error) =>
              logger.error({ err: error, job: job.name }, 'a scheduled run could not be queued'),
            );
          },
          // A process that was held up at its time runs it late: an archive that waits for the next night has lost a day.
          { timezone: 'UTC', missedExecutionTolerance: Number.POSITIVE_INFINITY, suppressMissedWarning: true },
        ),
      );

  const look = async () => {
    await reviveLost(pool);
    while (!stopping && underWay.size < concurrency) {
      // A lease of its own each time: a run that this very process lost and takes again is two holders.
      const owner = randomUUID();
      const run = await takeRun(pool, owner, [...byName.keys()]);
      const job = run && byName.get(run.job);
      if (run === undefined || job === undefined) return;
      const stop = new AbortController();
      const done = perform(job, run, owner, stop).finally(() => underWay.delete(owner));
      underWay.set(owner, { stop, done });
    }
  };
  let looking: Promise<void> | undefined;
  const timer = setInterval(() => {
    looking ??= look()
      .catch((error) => logger.warn({ err: error }, 'the job queue does not answer'))
      .finally(() => {
        looking = undefined;
      });
  }, pollMs);

  async function perform(job: Job, run: RunRow, owner: string, stop: AbortController): Promise<void> {
    const renew = async (progress: object | null) => {
      if (!(await renewRun(pool, run.id, owner, progress))) stop.abort(new Error('the lease is lost'));
    };
    const beat = setInterval(() => void renew(null).catch(() => undefined), (LEASE_SECONDS * 1000) / 3);
    logger.info({ job: job.name, run: run.id, attempt: run.attempt }, 'job started');
    try {
      const result = await job.run({ id: run.id, params: run.params, signal: stop.signal, progress: renew });
      await endRun(pool, run.id, owner, { result });
      logger.info({ job: job.name, run: run.id }, 'job succeeded');
    } catch (error) {
      await settle(job, run, owner, stop, error).catch((lost) =>
        logger.error({ err: lost, job: job.name, run: run.id }, 'the end of a run could not be recorded'),
      );
    } finally {
      clearInterval(beat);
    }
  }

  async function settle(job: Job, run: RunRow, owner: string, stop: AbortController, error: unknown): Promise<void> {
    if (stop.signal.aborted) return putBackRun(pool, run.id, owner, null, 0);
    const text = error instanceof TidemarkError ? `${error.message} (${error.code})` : String(error);
    const wait = RETRY_SECONDS[run.attempt - 1];
    if (isTransient(error) && wait !== undefined) {
      logger.warn({ err: error, job: job.name, run: run.id, retry_after: wait }, 'job will be tried again');
      return putBackRun(pool, run.id, owner, text, wait);
    }
    logger.error({ err: error, job: job.name, run: run.id }, 'job failed');
    return endRun(pool, run.id, owner, { error: text });
  }

  return {
    async stop() {
      stopping = true;
      clearInterval(timer);
      for (const task of tasks) await task.destroy();
      await looking;
      for (const { stop } of underWay.values()) stop.abort(new Error('the process stops'));
      let late: NodeJS.Timeout | undefined;
      await Promise.race([
        Promise.all([...underWay.values()].map((one) => one.done)),
        new Promise((resolve) => {
          late = setTimeout(resolve, STOP_WITHIN_MS);
        }),
      ]);
      clearTimeout(late);
    },
  };
}
