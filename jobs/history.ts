import type { Pool } from 'pg';
import type { Job } from '../schemas/index.ts';

const DELETE = `
  WITH old AS (SELECT id FROM job_runs WHERE ended_at < now() - make_interval(days => $1) LIMIT 10000)
  DELETE FROM job_runs USING old WHERE job_runs.id = old.id`;

/** Deletes old runs from the history, a bounded number at a time. */
export function createHistoryJob(pool: Pool, keepDays: number): Job {
  return {
    name: 'job_history',
    schedule: '17 3 * * *',
    async run({ signal }) {
      let deleted = 0;
      for (;;) {
        signal.throwIfAborted();
        const { rowCount } = await pool.query(DELETE, [keepDays]);
        deleted += rowCount ?? 0;
        if (rowCount === 0) return { deleted };
      }
    },
  };
}
