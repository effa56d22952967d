/** Carries a run out, wave by wave; any process may, one at a time, and the next one goes on where a killed one stopped. */
import { randomUUID } from 'node:crypto';
import { ERRORS, TidemarkError } from '../../schemas/index.ts';
import { isTransient } from '../../sinks/index.ts';
import { dryRun } from './dry-run.ts';
import { checkTenant, migrateTenant, type TargetWork, textOf, undoAfter, undoTenant } from './migrate-tenant.ts';
import type { MigrationDeps } from './places.ts';
import type { TenantMigration } from './read.ts';
import {
  dropLease,
  endRun,
  endTarget,
  getRun,
  listTargets,
  type MigrationRun,
  type RunStatus,
  statusUnder,
  type Target,
  takeLease,
} from './runs.ts';
import type { Structure } from './structure.ts';

/** Waits before a tenant is tried again after a passing failure, such as a lock that was not free. */
const RETRY_MS = [500, 2_000];

/**
 * @param signal fires when the process stops: tenants under way are finished, no further one is begun
 * @returns how the run stands
 * @throws TidemarkError `conflict` when another process carries it out
 */
export async function driveMigration(deps: MigrationDeps, runId: string, signal: AbortSignal): Promise<RunStatus> {
  const owner = randomUUID();
  if (!(await takeLease(deps.pool, runId, owner, deps.leaseSeconds)))
    throw new TidemarkError('conflict', 'another process carries this run out');
  const beat = setInterval(
    () => void takeLease(deps.pool, runId, owner, deps.leaseSeconds).catch(() => false),
    (deps.leaseSeconds * 1000) / 3,
  );
  try {
    return await new Drive(deps, owner, await getRun(deps.pool, runId), signal).run();
  } finally {
    clearInterval(beat);
    await dropLease(deps.pool, runId, owner).catch(() => undefined);
  }
}

class Drive {
  readonly #deps: MigrationDeps;
  readonly #owner: string;
  readonly #run: MigrationRun;
  readonly #signal: AbortSignal;
  #failed = false;

  constructor(deps: MigrationDeps, owner: string, run: MigrationRun, signal: AbortSignal) {
    this.#deps = deps;
    this.#owner = owner;
    this.#run = run;
    this.#signal = signal;
  }

  async run(): Promise<RunStatus> {
    if (this.#run.status !== 'running') return this.#run.status;
    let prepared: { migrations: readonly TenantMigration[]; structures: readonly Structure[] };
    try {
      prepared = await this.#testSchema();
    } catch (error) {
      if (isTransient(error)) throw error;
      await endRun(this.#deps.pool, this.#run.id, 'failed', `test schema: ${textOf(error)}`);
      return 'failed';
    }
    const targets = await listTargets(this.#deps.pool, this.#run.id);
    for (const wave of [...new Set(targets.map((one) => one.wave))].sort((a, b) => a - b)) {
      const own = targets.filter((one) => one.wave === wave);
      const open = own.filter((one) => one.status === 'pending' || one.status === 'running');
      if (open.length === 0) continue;
      await this.#all(open, (target) => this.#migrate({ ...prepared, target }));
      const status = await this.#status();
      if (status !== 'running') return status;
      await this.#all(open, (target) => this.#recheck({ ...prepared, target }));
      const after = await this.#status();
      if (after !== 'running') return after;
    }
    return this.#conclude();
  }

  /** Wave 0: the files are those of the plan, and they still work on a test schema. */
  async #testSchema() {
    const { plan, kind, options, versions } = this.#run;
    const all = this.#deps.migrations();
    for (const planned of plan.versions) {
      const ours = all.find((one) => one.version === planned.version);
      if (ours?.sha256 !== planned.sha256)
        throw new TidemarkError('migration_changed', `${planned.version}_${planned.name} is not what was planned`);
    }
    const last = versions.at(-1) ?? 0;
    const migrations = all.filter((one) => one.version <= last);
    if (kind === 'rollback') return { migrations, structures: [] };
    const from = migrations.length - versions.length;
    const { structures } = await dryRun(this.#deps.pool, migrations, from, options);
    return { migrations, structures };
  }

  /** `parallel` at a time; stops beginning further ones when the run is paused, failed, lost, or the process stops. */
  async #all(targets: readonly Target[], work: (target: Target) => Promise<void>): Promise<void> {
    const queue = [...targets];
    const worker = async () => {
      for (let target = queue.shift(); target !== undefined; target = queue.shift()) {
        if (this.#failed || (await this.#status()) !== 'running') return;
        await work(target);
      }
    };
    const workers = Array.from({ length: Math.min(this.#run.options.parallel, targets.length) }, worker);
    const outcomes = await Promise.allSettled(workers);
    const broken = outcomes.find((one) => one.status === 'rejected');
    if (broken !== undefined) throw broken.reason;
  }

  async #migrate(part: Omit<TargetWork, 'deps' | 'run' | 'fence'>): Promise<void> {
    const { tenantId } = part.target;
    let error: string | null = null;
    for (let attempt = 0; ; attempt++)
      try {
        const work = this.#workOf(part);
        // The first attempt goes on at the checkpoint; a further one starts over from the snapshot.
        if (this.#run.kind === 'rollback') await this.#undo(work);
        else await migrateTenant(attempt === 0 ? work : { ...work, target: { ...part.target, step: null } });
        break;
      } catch (failure) {
        if (failure instanceof LeaseLost) throw failure;
        const wait = RETRY_MS[attempt];
        error = textOf(failure);
        const passes = isTransient(failure) || (failure instanceof TidemarkError && ERRORS[failure.code].retryable);
        if (!passes || wait === undefined) break;
        error = null;
        await this.#deps.delay(wait);
      }
    const failures = await endTarget(this.#deps.pool, this.#run.id, tenantId, error);
    if (error !== null) await this.#fail(tenantId, error, failures);
  }

  /** Once a whole wave is through: is everybody in it still well? */
  async #recheck(part: Omit<TargetWork, 'deps' | 'run' | 'fence'>): Promise<void> {
    if (this.#run.kind === 'rollback') return;
    const target = (await listTargets(this.#deps.pool, this.#run.id)).find(
      (one) => one.tenantId === part.target.tenantId,
    );
    if (target?.status !== 'succeeded' || target.before === null) return;
    try {
      await checkTenant(this.#deps, target.tenantId);
    } catch (error) {
      await undoAfter(this.#workOf({ ...part, target }), target.before, error);
      const failures = await endTarget(this.#deps.pool, this.#run.id, target.tenantId, textOf(error));
      await this.#fail(target.tenantId, textOf(error), failures);
    }
  }

  async #undo(work: TargetWork): Promise<void> {
    const undone = this.#run.undoes;
    if (undone === null) throw new Error('a rollback names the run that it undoes');
    const then = (await listTargets(this.#deps.pool, undone)).find((one) => one.tenantId === work.target.tenantId);
    if (then?.before === null || then === undefined) throw new TidemarkError('not_found', 'there is no snapshot of it');
    await undoTenant(work, then.before);
    await checkTenant(this.#deps, work.target.tenantId);
  }

  #workOf(part: Omit<TargetWork, 'deps' | 'run' | 'fence'>): TargetWork {
    return {
      ...part,
      deps: this.#deps,
      run: this.#run,
      fence: async () => {
        if ((await statusUnder(this.#deps.pool, this.#run.id, this.#owner)) === 'lost') throw new LeaseLost();
      },
    };
  }

  async #fail(tenantId: string, error: string, failures: number): Promise<void> {
    const { onFailure, breaker } = this.#run.options;
    if (onFailure === 'continue' && failures < breaker) return;
    this.#failed = true;
    const why = onFailure === 'continue' ? `${failures} failures in a row, the last one: ` : '';
    await endRun(this.#deps.pool, this.#run.id, 'failed', `${why}tenant ${tenantId}: ${error}`);
  }

  async #status(): Promise<RunStatus> {
    this.#signal.throwIfAborted();
    const status = await statusUnder(this.#deps.pool, this.#run.id, this.#owner);
    if (status === 'lost') throw new LeaseLost();
    return status;
  }

  /** With failures that were gone past, the run is failed, so that they can be retried. */
  async #conclude(): Promise<RunStatus> {
    const failed = (await listTargets(this.#deps.pool, this.#run.id)).filter((one) => one.status === 'failed');
    const status = failed.length === 0 ? 'succeeded' : 'failed';
    const error = failed.length === 0 ? null : `${failed.length} tenants failed: retry or skip them`;
    await endRun(this.#deps.pool, this.#run.id, status, error);
    return status;
  }
}

/** Another process has taken the run over: whatever was under way here is not committed. */
class LeaseLost extends Error {
  constructor() {
    super('the lease of this run is lost');
  }
}
