import type { ClientBase, Pool } from 'pg';
import { Type } from 'typebox';
import type { Job } from '../../schemas/index.ts';
import { type ObjectStore, quoteIdentifier, withTransaction } from '../../sinks/index.ts';
import { forgetInMemory } from '../partition-memory.ts';
import { heartbeatName } from '../provisioning/steps/monitoring.ts';
import { dropTenantSchema } from '../schema/tenant-schema.ts';

/** What a purge takes away outside the database. */
export interface PurgeDeps {
  pool: Pool;
  objects: ObjectStore;
  heartbeats: { remove(name: string): Promise<void> } | undefined;
  /** closes the tenant's connections */
  closePool(tenantId: string): Promise<void>;
  /** a deletion is seen elsewhere at once */
  forget(): void;
  fault?(point: string): void;
}

/** Where everything that is kept of a tenant in the object store begins. */
export const objectPrefix = (tenantId: string): string => `tenants/${tenantId}/`;

const NOT_HELD = 'id NOT IN (SELECT tenant_id FROM legal_holds)';
const DUE = `
  SELECT id FROM tenants
  WHERE status = 'deleted' AND purged_at IS NULL AND delete_after <= now() AND ($1::uuid IS NULL OR id = $1) AND ${NOT_HELD}
  ORDER BY delete_after`;
const TABLES = `
  SELECT c.relname AS name FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
  WHERE c.relnamespace = 'tidemark'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND a.attname = 'tenant_id' AND a.atttypid = 'uuid'::regtype AND NOT a.attisdropped ORDER BY 1`;
const TOMBSTONE = `
  UPDATE tenants SET slug = NULL, name = 'deleted', email = NULL, tier = 'standard', purged_at = now()
  WHERE id = $1 AND status = 'deleted' AND purged_at IS NULL AND delete_after <= now() AND ${NOT_HELD}`;
/** Files of the archive hold all tenants: tiering's `archive_forget` takes this one out of them. */
const FORGET_ARCHIVED = 'INSERT INTO tidemark.purged_archives (tenant_id) VALUES ($1)';

/**
 * Takes away everything of the tenants whose grace period has ended: schema and roles, rows in every table that knows
 * tenants, backups, the heartbeat; its rows of the archive are taken by tiering, within the hour. One under legal hold waits for its
 * release. What stays are issued statements, and the customer_id with its UUID, so that late usage is refused. Safe to run
 * again after a crash at any point.
 */
export function createPurgeJob(deps: PurgeDeps): Job {
  return {
    name: 'tenants_purge',
    schedule: '*/10 * * * *',
    params: Type.Object({ tenant: Type.Optional(Type.String({ format: 'uuid' })) }),
    async run({ params, signal, progress }) {
      const { rows } = await deps.pool.query<{ id: string }>(DUE, [params.tenant ?? null]);
      const purged: { tenant_id: string; kept: string[] }[] = [];
      for (const { id } of rows) {
        signal.throwIfAborted();
        purged.push({ tenant_id: id, kept: await purgeTenant(deps, id) });
        await progress({ purged: purged.length, of: rows.length });
      }
      return { purged };
    },
  };
}

/** @returns tables in which rows stay */
async function purgeTenant(deps: PurgeDeps, tenantId: string): Promise<string[]> {
  await deps.closePool(tenantId);
  await deps.heartbeats?.remove(heartbeatName(tenantId));
  for await (const object of deps.objects.list(objectPrefix(tenantId))) await deps.objects.delete(object.key);
  deps.fault?.('purge/outside');
  const kept = await withTransaction(deps.pool, async (client) => {
    const { rowCount } = await client.query(TOMBSTONE, [tenantId]);
    // Resumed, or purged by another process, since it was found.
    if (rowCount === 0) return [];
    await forgetInMemory(client);
    await client.query(MARK_STALE, [tenantId]);
    await dropTenantSchema(client, tenantId);
    const left = await deleteRows(client, tenantId);
    await client.query(FORGET_ARCHIVED, [tenantId]);
    deps.fault?.('purge/rows');
    return left;
  });
  deps.forget();
  return kept;
}

/** Totals over all tenants are made again without it, from the hours that it was counted in. */
const MARK_STALE = `
  INSERT INTO stale_hours (shard, hour) SELECT DISTINCT shard, bucket FROM rollups_hour WHERE tenant_id = $1 ON CONFLICT DO NOTHING`;

/** A reference of another table, or a trigger: issued statements are never changed, and the law wants them kept. */
const REFUSED = /^23(503|001)$/;

/**
 * Tables refer to each other: what can't go yet goes in a later round.
 * @returns tables whose rows stay
 */
async function deleteRows(client: ClientBase, tenantId: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(TABLES);
  let left = rows.map((row) => row.name);
  for (let before = left.length + 1; left.length < before; ) {
    before = left.length;
    const refused: string[] = [];
    for (const name of left) if (!(await deleteFrom(client, name, tenantId))) refused.push(name);
    left = refused;
  }
  return left;
}

async function deleteFrom(client: ClientBase, table: string, tenantId: string): Promise<boolean> {
  const name = `tidemark.${quoteIdentifier(table)}`;
  const { rowCount } = await client.query(`SELECT FROM ${name} WHERE tenant_id = $1 LIMIT 1`, [tenantId]);
  if (rowCount === 0) return true;
  await client.query('SAVEPOINT purge');
  try {
    await client.query(`DELETE FROM ${name} WHERE tenant_id = $1`, [tenantId]);
    await client.query('RELEASE SAVEPOINT purge');
    return true;
  } catch (error) {
    await client.query('ROLLBACK TO SAVEPOINT purge');
    if (error instanceof Error && 'code' in error && REFUSED.test(String(error.code))) return false;
    throw error;
  }
}
