import type { Pool } from 'pg';
import { RUN_COLUMNS, type RunRow } from './queue.ts';

/** A run that nobody has renewed for this long is taken from its process. */
export const LEASE_SECONDS = 30;
/** A run that has ended its process this often is given up. */
const MOST_ATTEMPTS = 10;

const TAKE = `
  UPDATE job_runs SET status = 'running', attempt = attempt + 1, lease_owner = $1,
    lease_until = clock_timestamp() + make_interval(secs => $3), started_at = coalesce(started_at, now()), error = NULL
  WHERE id = (
    SELECT id FROM job_runs AS due
    WHERE status = 'queued' AND not_before <= now() AND job = ANY ($2)
      AND NOT EXISTS (SELECT FROM job_runs AS other WHERE other.job = due.job AND other.status = 'running')
    ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
  RETURNING ${RUN_COLUMNS}`;
const RENEW = `
  UPDATE job_runs SET lease_until = clock_timestamp() + make_interval(secs => $3), progress = coalesce($4, progress)
  WHERE id = $1 AND lease_owner = $2 AND status = 'running'`;
const END = `
  UPDATE job_runs SET status = $3, result = $4, error = $5, ended_at = now(), lease_owner = NULL, lease_until = NULL
  WHERE id = $1 AND lease_owner = $2 AND status = 'running'`;
const PUT_BACK = `
  UPDATE job_runs SET status = 'queued', error = $3, not_before = now() + make_interval(secs => $4), lease_owner = NULL, lease_until = NULL
  WHERE id = $1 AND lease_owner = $2 AND status = 'running'`;
const GIVE_UP_LOST = `
  UPDATE job_runs SET status = 'failed', error = 'the process that ran it ended, ' || attempt || ' times', ended_at = now(),
    lease_owner = NULL, lease_until = NULL
  WHERE status = 'running' AND lease_until < clock_timestamp() AND attempt >= $1`;
const REQUEUE_LOST = `
  UPDATE job_runs SET status = 'queued', lease_owner = NULL, lease_until = NULL
  WHERE status = 'running' AND lease_until < clock_timestamp()`;

/** Takes the oldest due run of these jobs. @returns undefined when there is none, or another process was first */
export async function takeRun(pool: Pool, owner: string, jobs: readonly string[]): Promise<RunRow | undefined> {
  try {
    return (await pool.query<RunRow>(TAKE, [owner, jobs, LEASE_SECONDS])).rows[0];
  } catch (error) {
    // unique_violation: two runs of one job were taken at the same moment, and the other won.
    if (error instanceof Error && 'code' in error && error.code === '23505') return undefined;
    throw error;
  }
}

/** @returns whether the run is still ours */
export async function renewRun(pool: Pool, id: string, owner: string, progress: object | null): Promise<boolean> {
  const { rowCount } = await pool.query(RENEW, [
    id,
    owner,
    LEASE_SECONDS,
    progress === null ? null : JSON.stringify(progress),
  ]);
  return rowCount === 1;
}

export async function endRun(
  pool: Pool,
  id: string,
  owner: string,
  outcome: { result: object } | { error: string },
): Promise<void> {
  await ('result' in outcome
    ? pool.query(END, [id, owner, 'succeeded', JSON.stringify(outcome.result), null])
    : pool.query(END, [id, owner, 'failed', null, outcome.error]));
}

/** Gives a run back to the queue. */
export async function putBackRun(
  pool: Pool,
  id: string,
  owner: string,
  error: string | null,
  afterSeconds: number,
): Promise<void> {
  await pool.query(PUT_BACK, [id, owner, error, afterSeconds]);
}

/** Runs whose process is gone are queued again, or given up when they have ended too many. */
export async function reviveLost(pool: Pool): Promise<void> {
  await pool.query(GIVE_UP_LOST, [MOST_ATTEMPTS]);
  await pool.query(REQUEUE_LOST);
}
