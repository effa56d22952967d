import type { Pool } from 'pg';
import { type JobQueue, type JobRun, TidemarkError } from '../schemas/index.ts';

export const RUN_COLUMNS =
  'id, job, status, params, progress, result, error, attempt, created_at, started_at, ended_at' as const;

/** A row of `job_runs` as PostgreSQL gives it. */
export interface RunRow extends Omit<JobRun, 'created_at' | 'started_at' | 'ended_at'> {
  created_at: Date;
  started_at: Date | null;
  ended_at: Date | null;
}

const REQUEST = `
  INSERT INTO job_runs (job, params, scheduled_for) VALUES ($1, $2, $3)
  ON CONFLICT DO NOTHING RETURNING ${RUN_COLUMNS}`;
const OPEN_RUN = `
  SELECT ${RUN_COLUMNS} FROM job_runs
  WHERE job = $1 AND md5(params::text) = md5($2::jsonb::text) AND status IN ('queued', 'running')`;
const FIND = `SELECT ${RUN_COLUMNS} FROM job_runs WHERE id = $1`;
const LIST = `
  SELECT ${RUN_COLUMNS} FROM job_runs
  WHERE ($1::text IS NULL OR job = $1) AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
  ORDER BY created_at DESC, id DESC LIMIT $4`;

/**
 * The queue of runs.
 * @param jobs names that may be requested; a process that runs no jobs itself still knows them
 */
export function openJobQueue(pool: Pool, jobs: ReadonlySet<string>): JobQueue {
  return {
    async request(job, params) {
      if (!jobs.has(job)) throw new TidemarkError('unknown_job', `there is no job ${job}`);
      const text = JSON.stringify(params);
      // Between the conflict and the look the other run may end: then there is room for this one.
      for (;;) {
        const { rows: made } = await pool.query<RunRow>(REQUEST, [job, text, null]);
        const { rows: found } = made.length > 0 ? { rows: made } : await pool.query<RunRow>(OPEN_RUN, [job, text]);
        if (found[0] !== undefined) return toRun(found[0]);
      }
    },
    async find(id) {
      const { rows } = await pool.query<RunRow>(FIND, [id]);
      return rows[0] === undefined ? undefined : toRun(rows[0]);
    },
    async list({ job, limit, before }) {
      const { rows } = await pool.query<RunRow>(LIST, [
        job ?? null,
        before?.createdAt ?? null,
        before?.id ?? null,
        limit,
      ]);
      return rows.map(toRun);
    },
  };
}

/** Queues the run of a scheduled minute, once however many processes try, and not beside an equal one under way. */
export async function requestScheduled(pool: Pool, job: string, minute: Date): Promise<void> {
  await pool.query(REQUEST, [job, '{}', minute]);
}

function toRun(row: RunRow): JobRun {
  return {
    ...row,
    created_at: row.created_at.toISOString(),
    started_at: row.started_at?.toISOString() ?? null,
    ended_at: row.ended_at?.toISOString() ?? null,
  };
}
