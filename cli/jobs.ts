/** Every job of every room, and where they run. */
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { createHistoryJob, openJobQueue, startJobs } from '../jobs/index.ts';
import type { Job, JobQueue, Settings } from '../schemas/index.ts';

/**
 * @param jobs of the rooms
 * @returns the queue that routes and commands ask; runs happen here only where this process has the role `jobs`
 */
export function runJobs(
  jobs: readonly Job[],
  deps: { pool: Pool; settings: Settings; logger: Logger; disposers: (() => Promise<void> | void)[] },
): JobQueue {
  const { pool, settings, logger } = deps;
  const all = [...jobs, createHistoryJob(pool, settings.JOB_HISTORY_DAYS)];
  if (settings.ROLES.has('jobs')) {
    const runner = startJobs({ pool, jobs: all, logger, concurrency: settings.JOBS_AT_ONCE });
    deps.disposers.push(() => runner.stop());
  }
  return openJobQueue(pool, new Set(all.map((job) => job.name)));
}
