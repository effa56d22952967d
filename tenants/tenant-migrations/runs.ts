/** Runs and their targets as rows: who works on what, and how far it is. */
import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import type { MigrationPlan, Strategy } from './plan.ts';
import type { Structure } from './structure.ts';
import { wavesOf } from './waves.ts';

export const RUN_STATUSES = ['running', 'paused', 'succeeded', 'failed'] as const;
export type RunStatus = (typeof RUN_STATUSES)[number];
export const TARGET_STATUSES = ['pending', 'running', 'succeeded', 'failed', 'skipped'] as const;
export type TargetStatus = (typeof TARGET_STATUSES)[number];

export interface RunOptions {
  /** tenants at once */
  parallel: number;
  /** tenants in the first wave */
  firstWave: number;
  /** longest wait for a lock, and longest run of one file, ms */
  lockMs: number;
  statementMs: number;
  /** what a tenant's failure does to the others: end the run, or go on until `breaker` have failed in a row */
  onFailure: 'abort' | 'continue';
  breaker: number;
}

export interface MigrationRun {
  id: string;
  kind: 'apply' | 'rollback';
  strategy: Strategy;
  status: RunStatus;
  undoes: string | null;
  versions: number[];
  plan: MigrationPlan;
  options: RunOptions;
  failures: number;
  error: string | null;
  createdAt: Date;
  endedAt: Date | null;
}

/** The state before, which a failure goes back to. */
export interface Snapshot {
  versions: number[];
  structure: Structure;
}

export interface Target {
  tenantId: string;
  wave: number;
  status: TargetStatus;
  /** the last step begun */
  step: string | null;
  before: Snapshot | null;
  attempt: number;
  error: string | null;
  startedAt: Date | null;
  endedAt: Date | null;
}

const RUN = `id, kind, strategy, status, undoes, versions::float8[] AS versions, plan, options, failures, error, created_at AS "createdAt", ended_at AS "endedAt"`;
const TARGET = `tenant_id AS "tenantId", wave, status, step, before, attempt, error, started_at AS "startedAt", ended_at AS "endedAt"`;

/**
 * Writes down a run and its targets; whoever takes its lease carries it out.
 * @throws TidemarkError `conflict` while another run is open
 */
export async function createRun(
  pool: Pool,
  run: { kind: MigrationRun['kind']; plan: MigrationPlan; options: RunOptions; undoes?: string },
): Promise<MigrationRun> {
  const { tenants, versions, strategy } = run.plan;
  try {
    return await withTransaction(pool, async (client) => {
      const { rows } = await client.query<MigrationRun>(
        `INSERT INTO migration_runs (kind, strategy, undoes, versions, plan, options) VALUES ($1, $2, $3, $4, $5, $6) RETURNING ${RUN}`,
        [
          run.kind,
          strategy,
          run.undoes ?? null,
          versions.map((one) => one.version),
          JSON.stringify(run.plan),
          JSON.stringify(run.options),
        ],
      );
      const made = rows[0];
      if (made === undefined) throw new Error('INSERT returned no row');
      await client.query(
        'INSERT INTO migration_targets (run_id, tenant_id, wave, position) SELECT $1, t.id, t.wave, t.n FROM unnest($2::uuid[], $3::int[]) WITH ORDINALITY AS t (id, wave, n)',
        [made.id, tenants, wavesOf(tenants.length, run.options.firstWave)],
      );
      return made;
    });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === '23505')
      throw new TidemarkError('conflict', 'another migration is under way: wait for it, or resume and end it', {
        cause: error,
      });
    throw error;
  }
}

/** @throws TidemarkError `not_found` */
export async function getRun(pool: Pool, id: string): Promise<MigrationRun> {
  const { rows } = await pool.query<MigrationRun>(`SELECT ${RUN} FROM migration_runs WHERE id = $1`, [id]);
  if (rows[0] === undefined) throw new TidemarkError('not_found', `there is no migration run ${id}`);
  return rows[0];
}

/** Newest first. @param before a run: older ones only */
export async function listRuns(
  pool: Pool,
  { limit, before }: { limit: number; before?: { createdAt: string; id: string } | undefined },
): Promise<MigrationRun[]> {
  const { rows } = await pool.query<MigrationRun>(
    `SELECT ${RUN} FROM migration_runs WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid))
     ORDER BY created_at DESC, id DESC LIMIT $3`,
    [before?.createdAt ?? null, before?.id ?? null, limit],
  );
  return rows;
}

/** In the order in which they come. */
export async function listTargets(pool: Pool, runId: string): Promise<Target[]> {
  const { rows } = await pool.query<Target>(
    `SELECT ${TARGET} FROM migration_targets WHERE run_id = $1 ORDER BY position`,
    [runId],
  );
  return rows;
}

/** The run that is to be carried out: there is one at most. */
export async function openRun(pool: Pool): Promise<string | undefined> {
  const { rows } = await pool.query<{ id: string }>(`SELECT id FROM migration_runs WHERE status = 'running'`);
  return rows[0]?.id;
}

/** @returns false when another process has it */
export async function takeLease(pool: Pool, runId: string, owner: string, seconds: number): Promise<boolean> {
  const { rowCount } = await pool.query(
    `UPDATE migration_runs SET lease_owner = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
     WHERE id = $1 AND (lease_owner = $2 OR lease_until IS NULL OR lease_until < clock_timestamp())`,
    [runId, owner, seconds],
  );
  return rowCount === 1;
}

export async function dropLease(pool: Pool, runId: string, owner: string): Promise<void> {
  await pool.query(
    'UPDATE migration_runs SET lease_owner = NULL, lease_until = NULL WHERE id = $1 AND lease_owner = $2',
    [runId, owner],
  );
}

/** The run's status, if the lease is still `owner`'s: what decides whether the next step may be taken. */
export async function statusUnder(pool: Pool, runId: string, owner: string): Promise<RunStatus | 'lost'> {
  const { rows } = await pool.query<{ status: RunStatus }>(
    'SELECT status FROM migration_runs WHERE id = $1 AND lease_owner = $2 AND lease_until > clock_timestamp()',
    [runId, owner],
  );
  return rows[0]?.status ?? 'lost';
}

/** Checkpoint: the step is about to be taken. */
export async function beginStep(pool: Pool, runId: string, tenantId: string, step: string): Promise<void> {
  await pool.query(
    `UPDATE migration_targets SET step = $3, status = 'running', started_at = coalesce(started_at, now()), ended_at = NULL
     WHERE run_id = $1 AND tenant_id = $2`,
    [runId, tenantId, step],
  );
}

export async function keepSnapshot(pool: Pool, runId: string, tenantId: string, before: Snapshot): Promise<void> {
  await pool.query('UPDATE migration_targets SET before = $3 WHERE run_id = $1 AND tenant_id = $2', [
    runId,
    tenantId,
    JSON.stringify(before),
  ]);
}

/** How a target ended; a success breaks a row of failures. @returns failures in a row, of all tenants */
export async function endTarget(pool: Pool, runId: string, tenantId: string, error: string | null): Promise<number> {
  return withTransaction(pool, async (client) => {
    await client.query(
      `UPDATE migration_targets SET status = $3, error = $4, attempt = attempt + 1, ended_at = now() WHERE run_id = $1 AND tenant_id = $2`,
      [runId, tenantId, error === null ? 'succeeded' : 'failed', error],
    );
    const { rows } = await client.query<{ failures: number }>(
      'UPDATE migration_runs SET failures = CASE WHEN $2 THEN failures + 1 ELSE 0 END WHERE id = $1 RETURNING failures',
      [runId, error !== null],
    );
    return rows[0]?.failures ?? 0;
  });
}

/** Ends a run that is under way. */
export async function endRun(
  pool: Pool,
  runId: string,
  status: 'succeeded' | 'failed',
  error: string | null,
): Promise<void> {
  await pool.query(
    `UPDATE migration_runs SET status = $2, error = $3, ended_at = now() WHERE id = $1 AND status IN ('running', 'paused')`,
    [runId, status, error],
  );
}

/** No further tenant is begun; those under way are finished. @throws TidemarkError `not_found` | `conflict` */
export async function pauseRun(pool: Pool, runId: string): Promise<MigrationRun> {
  return change(pool, runId, 'paused', ['running', 'paused']);
}

/** Goes on where a pause, a failure or a circuit breaker stopped it. @throws TidemarkError `not_found` | `conflict` */
export async function resumeRun(pool: Pool, runId: string): Promise<MigrationRun> {
  return change(pool, runId, 'running', ['paused', 'failed', 'running']);
}

async function change(pool: Pool, runId: string, to: RunStatus, from: readonly RunStatus[]): Promise<MigrationRun> {
  const run = await getRun(pool, runId);
  try {
    const { rows } = await pool.query<MigrationRun>(
      `UPDATE migration_runs SET status = $2, error = NULL, failures = 0, ended_at = NULL WHERE id = $1 AND status = ANY ($3) RETURNING ${RUN}`,
      [runId, to, from],
    );
    if (rows[0] !== undefined) return rows[0];
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === '23505')) throw error;
    throw new TidemarkError('conflict', 'another migration is under way', { cause: error });
  }
  throw new TidemarkError('conflict', `the run is ${run.status}`);
}

/** Leaves one tenant out: pending or failed, not one under way. @throws TidemarkError `conflict` */
export async function skipTarget(pool: Pool, runId: string, tenantId: string): Promise<void> {
  await setTargets(pool, runId, tenantId, 'skipped', ['pending', 'failed', 'skipped']);
}

/** Puts failed and skipped tenants (or one of them) back in line. @throws TidemarkError `conflict` when there is none */
export async function retryTargets(pool: Pool, runId: string, tenantId: string | null): Promise<void> {
  await setTargets(pool, runId, tenantId, 'pending', tenantId === null ? ['failed'] : ['failed', 'skipped']);
}

async function setTargets(
  pool: Pool,
  runId: string,
  tenantId: string | null,
  to: TargetStatus,
  from: readonly TargetStatus[],
): Promise<void> {
  await getRun(pool, runId);
  const { rowCount } = await pool.query(
    `UPDATE migration_targets SET status = $3, step = NULL, error = CASE WHEN $3 = 'skipped' THEN error END, before = NULL
     WHERE run_id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND status = ANY ($4)`,
    [runId, tenantId, to, from],
  );
  if (rowCount === 0) throw new TidemarkError('conflict', `no such tenant of this run is ${from.join(' or ')}`);
}
