/** One tenant of a run: every step may be cut off and taken again, and a failure goes back to the snapshot. */
import type { ClientBase } from 'pg';
import { ERRORS, TidemarkError } from '../../schemas/index.ts';
import { isTransient, withTransaction } from '../../sinks/index.ts';
import { schemaOf } from '../schema/names.ts';
import { appliedVersions, applyTenantMigrations, undoTenantMigrations } from './apply.ts';
import { buildNext, copyAndSwitch, nextSchemaOf, oldSchemaOf, schemaExists, switchBack } from './blue-green.ts';
import { limit } from './dry-run.ts';
import { sampleSchema } from './health-check.ts';
import type { MigrationDeps } from './places.ts';
import type { TenantMigration } from './read.ts';
import { beginStep, keepSnapshot, type MigrationRun, type Snapshot, type Target } from './runs.ts';
import { diffStructures, readStructure, type Structure, sameDiff } from './structure.ts';

export interface TargetWork {
  deps: MigrationDeps;
  run: MigrationRun;
  target: Target;
  /** all migrations; the run's own are the last of them that the tenant lacks */
  migrations: readonly TenantMigration[];
  /** what the test schema looked like with the first n of them */
  structures: readonly Structure[];
  /** @throws when the run is no longer ours: nothing is committed then */
  fence(): Promise<void>;
}

/** Brings the tenant to the run's last version. @throws what failed, after everything was undone */
export async function migrateTenant(work: TargetWork): Promise<void> {
  const { target } = work;
  const before = target.before ?? (await snapshot(work));
  if (target.step === 'undo') {
    await undoTenant(work, before);
    throw new TidemarkError('migration_unhealthy', target.error ?? 'was undone after its health check had failed');
  }
  if (work.run.strategy === 'blue_green') await switchOver(work, before);
  else await applyInPlace(work, before);
  try {
    await begin(work, 'health');
    await checkTenant(work.deps, target.tenantId);
  } catch (error) {
    await undoAfter(work, before, error);
    throw error;
  }
}

/** Goes back because of `why`; where that fails too, both are said. */
export async function undoAfter(work: TargetWork, before: Snapshot, why: unknown): Promise<void> {
  try {
    await undoTenant(work, before);
  } catch (error) {
    throw new TidemarkError('migration_irreversible', `${textOf(why)}; going back failed: ${textOf(error)}`, {
      cause: error,
    });
  }
}

/** Whether the tenant's own role finds its schema working. @throws TidemarkError `migration_unhealthy` */
export async function checkTenant(deps: MigrationDeps, tenantId: string): Promise<void> {
  try {
    await deps.useTenant(tenantId, (connection) => sampleSchema(connection, schemaOf(tenantId)));
  } catch (cause) {
    if (isTransient(cause) || (cause instanceof TidemarkError && ERRORS[cause.code].retryable)) throw cause;
    throw new TidemarkError('migration_unhealthy', `its own role finds: ${textOf(cause)}`, { cause });
  }
}

/** Takes the run's versions back: by rename where the old schema was kept, else by their way back. Idempotent. */
export async function undoTenant(work: TargetWork, before: Snapshot): Promise<void> {
  const { deps, run, target, migrations } = work;
  await begin(work, 'undo');
  const schema = schemaOf(target.tenantId);
  await inTransaction(work, async (client) => {
    const applied = (await appliedVersions(client, schema)).map((one) => one.version);
    const added = applied.filter((version) => !before.versions.includes(version));
    if (added.length === 0) return;
    const isKept = run.strategy === 'blue_green' && (await schemaExists(client, oldSchemaOf(target.tenantId)));
    if (isKept) await switchBack(client, target.tenantId);
    else await undoTenantMigrations(client, schema, migrations, added);
    const diff = diffStructures(before.structure, await readStructure(client, schema));
    if (diff.added.length + diff.removed.length > 0)
      throw new TidemarkError('migration_structure', `going back left a difference: ${describe(diff)}`);
  });
  deps.onStep?.(target.tenantId, 'undone');
}

async function snapshot(work: TargetWork): Promise<Snapshot> {
  const { deps, run, target } = work;
  await begin(work, 'snapshot');
  const pool = await deps.databaseOf(target.tenantId);
  const schema = schemaOf(target.tenantId);
  const versions = (await appliedVersions(pool, schema)).map((one) => one.version);
  const before = { versions, structure: await readStructure(pool, schema) };
  await keepSnapshot(deps.pool, run.id, target.tenantId, before);
  return before;
}

async function applyInPlace(work: TargetWork, before: Snapshot): Promise<void> {
  await begin(work, 'apply');
  const schema = schemaOf(work.target.tenantId);
  await inTransaction(work, async (client) => {
    const applied = await applyTenantMigrations(client, schema, work.migrations);
    if (applied.length > 0) await checkStructure(work, client, schema, before);
  });
  work.deps.onStep?.(work.target.tenantId, 'applied');
}

async function switchOver(work: TargetWork, before: Snapshot): Promise<void> {
  const { deps, target, migrations } = work;
  const schema = schemaOf(target.tenantId);
  const pool = await deps.databaseOf(target.tenantId);
  const now = (await appliedVersions(pool, schema)).map((one) => one.version);
  // Switched already, when we were cut off after it.
  if (now.length === migrations.length) return;
  await begin(work, 'build');
  await inTransaction(work, (client) =>
    buildNext(client, target.tenantId, migrations.slice(0, before.versions.length)),
  );
  deps.onStep?.(target.tenantId, 'built');
  await begin(work, 'switch');
  await inTransaction(work, async (client) => {
    const next = nextSchemaOf(target.tenantId);
    // What the tenant has beyond the migrations would be left behind: then in place is the only way.
    const drift = diffStructures(await readStructure(client, next), before.structure);
    if (drift.added.length + drift.removed.length > 0)
      throw new TidemarkError('migration_structure', `its schema is not what its migrations make: ${describe(drift)}`);
    await copyAndSwitch(client, target.tenantId, migrations);
    await checkStructure(work, client, schema, before);
  });
  deps.onStep?.(target.tenantId, 'switched');
}

/** The change must be the one that the test schema saw, whatever else the tenant's schema holds. */
async function checkStructure(work: TargetWork, client: ClientBase, schema: string, before: Snapshot): Promise<void> {
  const planned = diffStructures(
    work.structures[before.versions.length] ?? [],
    work.structures[work.migrations.length] ?? [],
  );
  const made = diffStructures(before.structure, await readStructure(client, schema));
  if (sameDiff(planned, made)) return;
  const added = diffStructures(planned.added, made.added);
  const removed = diffStructures(planned.removed, made.removed);
  throw new TidemarkError(
    'migration_structure',
    `the change is not as planned: ${describe(added)} ${describe(removed)}`,
  );
}

const describe = ({ added, removed }: { added: readonly string[]; removed: readonly string[] }): string =>
  [...removed.map((line) => `- ${line}`), ...added.map((line) => `+ ${line}`)].slice(0, 10).join('; ');

/** A transaction on the tenant's database that is bounded in time and is only committed while the run is ours. */
async function inTransaction(work: TargetWork, change: (client: ClientBase) => Promise<unknown>): Promise<void> {
  await withTransaction(await work.deps.databaseOf(work.target.tenantId), async (client) => {
    await limit(client, work.run.options);
    await change(client);
    await work.fence();
    work.deps.onStep?.(work.target.tenantId, 'committing');
  });
}

async function begin({ deps, run, target }: TargetWork, step: string): Promise<void> {
  await beginStep(deps.pool, run.id, target.tenantId, step);
  deps.onStep?.(target.tenantId, step);
}

export const textOf = (error: unknown): string => {
  const code = error instanceof Error && 'code' in error ? ` (${error.code})` : '';
  return `${error instanceof Error ? error.message : error}${code}`;
};
