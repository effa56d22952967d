/** What an operator does with migrations. */
import { type Job, TidemarkError } from '../../schemas/index.ts';
import { driveMigration } from './drive.ts';
import type { MigrationDeps } from './places.ts';
import { type MigrationPlan, planMigration, type Strategy } from './plan.ts';
import { createRun, getRun, listRuns, listTargets, type MigrationRun, openRun, type RunOptions } from './runs.ts';

export interface MigrationRequest {
  strategy?: Strategy | undefined;
  /** UUIDs; undefined: all tenants that lack something */
  tenants?: readonly string[] | undefined;
  options: RunOptions;
}

/** Plans and writes down a run; the job carries it out. @throws TidemarkError `nothing_to_migrate` | `conflict` and what planning throws */
export async function startMigration(deps: MigrationDeps, request: MigrationRequest): Promise<MigrationRun> {
  const plan = await planMigration(deps, request.options, { chosen: request.tenants, strategy: request.strategy });
  if (plan.tenants.length === 0) throw new TidemarkError('nothing_to_migrate', 'every tenant has every migration');
  return createRun(deps.pool, { kind: 'apply', plan, options: request.options });
}

/**
 * Writes down a run that takes an earlier one back, for every tenant that it had changed, all in one wave.
 * @param runId undefined: the newest that applied something
 * @throws TidemarkError `not_found` | `conflict` | `nothing_to_migrate`
 */
export async function startRollback(deps: MigrationDeps, runId?: string): Promise<MigrationRun> {
  const run =
    runId === undefined
      ? (await listRuns(deps.pool, { limit: 100 })).find((one) => one.kind === 'apply')
      : await getRun(deps.pool, runId);
  if (run === undefined) throw new TidemarkError('not_found', 'there is no migration run');
  if (run.kind === 'rollback') throw new TidemarkError('conflict', 'a rollback is taken back by applying again');
  const changed = (await listTargets(deps.pool, run.id)).filter((one) => one.status === 'succeeded');
  if (changed.length === 0) throw new TidemarkError('nothing_to_migrate', 'that run has changed no tenant');
  const plan: MigrationPlan = { ...run.plan, tenants: changed.map((one) => one.tenantId) };
  const options = { ...run.options, firstWave: changed.length, onFailure: 'continue' as const };
  return createRun(deps.pool, { kind: 'rollback', plan, options, undoes: run.id });
}

/** Name of the job that carries runs out. */
export const MIGRATION_JOB = 'tenant-migrations';

/** Carries the open run out; each minute it looks for one whose process is gone. */
export function createMigrationJob(deps: MigrationDeps): Job {
  return {
    name: MIGRATION_JOB,
    schedule: '* * * * *',
    async run({ signal, progress }) {
      const done: Record<string, string> = {};
      for (;;) {
        signal.throwIfAborted();
        const runId = await openRun(deps.pool);
        if (runId === undefined) return { runs: done };
        await progress({ run: runId });
        try {
          done[runId] = await driveMigration(deps, runId, signal);
        } catch (error) {
          if (!(error instanceof TidemarkError) || error.code !== 'conflict') throw error;
          // Its process was killed a moment ago: the lease ends soon.
          await deps.delay(1_000);
        }
      }
    },
  };
}
