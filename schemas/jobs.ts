import type { TSchema } from 'typebox';

/** A job: what runs by schedule or by request, once at a time over all processes (the lock is a row with a lease). */
export interface Job {
  name: string;
  /** cron expression of five fields, in UTC; absent: only by request */
  schedule?: string;
  /** what a request may pass */
  params?: TSchema;
  /**
   * Does the work; must be safe to run again after a crash at any point.
   * @returns what the history shows, JSON
   */
  run(context: JobContext): Promise<Record<string, unknown>>;
}

export interface JobContext {
  /** of this run, UUID */
  id: string;
  params: Record<string, unknown>;
  /** fires when the process stops or the lease is lost: end soon, change nothing afterwards */
  signal: AbortSignal;
  /** Records how far the run is (JSON, replaces the last), and renews the lease. */
  progress(state: Record<string, unknown>): Promise<void>;
}

export const JOB_STATUSES = ['queued', 'running', 'succeeded', 'failed'] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/** One run of a job. */
export interface JobRun {
  id: string;
  job: string;
  status: JobStatus;
  params: Record<string, unknown>;
  progress: Record<string, unknown> | null;
  result: Record<string, unknown> | null;
  error: string | null;
  attempt: number;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
}

/** Asks for runs; any process may, the one with the role `jobs` runs them. */
export interface JobQueue {
  /** @returns the queued run, or the one under way with the same job and params */
  request(job: string, params: Record<string, unknown>): Promise<JobRun>;
  find(id: string): Promise<JobRun | undefined>;
  /** Newest first. @param before a run's `created_at` and `id`: older ones only */
  list(filter: { job?: string; limit: number; before?: { createdAt: string; id: string } }): Promise<JobRun[]>;
}
