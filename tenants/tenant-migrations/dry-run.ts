import { randomBytes, randomUUID } from 'node:crypto';
import type { ClientBase, Pool } from 'pg';
import { schemaOf } from '../schema/names.ts';
import { createTenantSchema, ROLE_LIMITS } from '../schema/tenant-schema.ts';
import { applyTenantMigrations, undoTenantMigrations } from './apply.ts';
import type { TenantMigration } from './read.ts';
import { diffStructures, readStructure, type Structure, type StructureDiff } from './structure.ts';

/** What the way back of one migration does: nothing is left of it, something differs, or there is none. */
export type Undo = { kind: 'exact' } | { kind: 'differs'; diff: StructureDiff } | { kind: 'none' };

export interface DryRun {
  /** the structure with the first n migrations applied, for each n from 0 */
  structures: Structure[];
  /** by version, of those tried */
  undo: Map<number, Undo>;
}

export interface Timeouts {
  /** longest wait for a lock, ms */
  lockMs: number;
  /** longest run of one file, ms */
  statementMs: number;
}

/**
 * Applies all migrations to a test schema, and undoes them from the newest down to `from`, in a transaction that is rolled
 * back: nothing is left, and no tenant's schema is touched.
 * @param from how many of them are applied everywhere already: those are not undone
 */
export async function dryRun(
  pool: Pool,
  migrations: readonly TenantMigration[],
  from: number,
  timeouts: Timeouts,
): Promise<DryRun> {
  const tenantId = randomUUID();
  const schema = schemaOf(tenantId);
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query('BEGIN');
    await limit(client, timeouts);
    const password = randomBytes(16).toString('hex');
    await createTenantSchema(client, tenantId, { password, limits: ROLE_LIMITS.free });
    const structures = [await readStructure(client, schema)];
    for (const n of migrations.keys()) {
      await applyTenantMigrations(client, schema, migrations.slice(0, n + 1));
      structures.push(await readStructure(client, schema));
    }
    return { structures, undo: await tryUndo(client, schema, migrations, from, structures) };
  } finally {
    await client.query('ROLLBACK').catch((error: Error) => {
      broken = error;
    });
    client.release(broken);
  }
}

async function tryUndo(
  client: ClientBase,
  schema: string,
  migrations: readonly TenantMigration[],
  from: number,
  structures: readonly Structure[],
): Promise<Map<number, Undo>> {
  const undo = new Map<number, Undo>();
  for (let n = migrations.length - 1; n >= from; n--) {
    const one = migrations[n];
    if (one === undefined) continue;
    if (one.down === null || [...undo.values()].some((later) => later.kind === 'none')) {
      // What came before can't be tried on a schema that still has this one; its own way back counts.
      undo.set(one.version, one.down === null ? { kind: 'none' } : { kind: 'exact' });
      continue;
    }
    await undoTenantMigrations(client, schema, migrations, [one.version]);
    const diff = diffStructures(structures[n] ?? [], await readStructure(client, schema));
    const isExact = diff.added.length + diff.removed.length === 0;
    undo.set(one.version, isExact ? { kind: 'exact' } : { kind: 'differs', diff });
  }
  return undo;
}

/** Bounds waits and runs of the current transaction, so that no other tenant and no writer waits long. */
export async function limit(client: ClientBase, { lockMs, statementMs }: Timeouts): Promise<void> {
  await client.query("SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true)", [
    `${lockMs}ms`,
    `${statementMs}ms`,
  ]);
}
