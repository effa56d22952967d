import { type Tenant, TidemarkError } from '../../schemas/index.ts';
import { readManifest } from '../backup/manifest.ts';
import { fillSchema, migrationsOf } from '../backup/restore.ts';
import { changeTenant } from '../lifecycle/state.ts';
import type { HeartbeatDeps } from '../provisioning/steps/monitoring.ts';
import { heartbeatName } from '../provisioning/steps/monitoring.ts';
import { schemaOf } from '../schema/names.ts';
import { createTenantSchema, ROLE_LIMITS } from '../schema/tenant-schema.ts';
import type { SecretBox } from '../secrets/cipher.ts';
import { applyTenantMigrations } from '../tenant-migrations/apply.ts';
import type { TenantMigration } from '../tenant-migrations/index.ts';
import { type ArchivalDeps, openAs, reopenTenant } from './archive.ts';

export interface UnarchiveDeps extends Omit<ArchivalDeps, 'heartbeats'> {
  secrets: SecretBox;
  heartbeats: HeartbeatDeps | undefined;
  /** all that this build knows, in order */
  migrations(): readonly TenantMigration[];
}

export interface TenantUnarchived extends Record<string, unknown> {
  tenant_id: string;
  status: string;
  tables: number;
  rows: number;
  /** migrations that came since: `tidemark migrate apply` applies them */
  behind: number;
}

const FIND = `
  SELECT state, status, backup, secret FROM tenant_archives WHERE tenant_id = $1`;

interface ArchiveRow {
  state: 'storing' | 'stored';
  status: string;
  backup: string | null;
  secret: Buffer | null;
}

/**
 * Brings an archived tenant back as it was, in one transaction: roles with the same password, schema at the same version,
 * rows compared with the backup's manifest. Its keys, configuration and usage never left. Safe to run again.
 * @throws TidemarkError `conflict` where it is not archived, `unknown_backup`, `backup_damaged`, `migration_missing`
 */
export async function unarchiveTenant(
  deps: UnarchiveDeps,
  tenantId: string,
  signal: AbortSignal,
): Promise<TenantUnarchived> {
  const { pool, objects, secrets, fault } = deps;
  const found = (await pool.query<ArchiveRow>(FIND, [tenantId])).rows[0];
  if (found === undefined) throw new TidemarkError('conflict', 'the tenant is not archived');
  if (found.state === 'storing' || found.backup === null) {
    await reopenTenant({ ...deps, heartbeats: undefined }, tenantId);
    return { tenant_id: tenantId, status: found.status, tables: 0, rows: 0, behind: 0 };
  }
  const manifest = await readManifest(objects, tenantId, found.backup);
  const applied = migrationsOf(manifest, deps.migrations());
  await changeTenant(pool, tenantId, async (client, locked) => {
    if (locked.tenant.status === 'deleted')
      throw new TidemarkError('tenant_deleted', 'the tenant is deleted: resume it first');
    const row = (await client.query<ArchiveRow>(FIND, [tenantId])).rows[0];
    // Another run of this was first.
    if (row?.secret === null || row === undefined) return;
    const schema = schemaOf(tenantId);
    await client.query('INSERT INTO tenant_schemas (tenant_id, schema, secret) VALUES ($1, $2, $3)', [
      tenantId,
      schema,
      row.secret,
    ]);
    const password = secrets.open(row.secret, `tenant_schemas/${tenantId}`);
    await createTenantSchema(client, tenantId, { password, limits: ROLE_LIMITS[tierOf(locked.tenant)] });
    await applyTenantMigrations(client, schema, applied);
    fault?.('tenant-unarchive/schema');
    await fillSchema(deps, client, manifest, { tenantId, schema }, signal);
    fault?.('tenant-unarchive/filled');
    await openAs(client, locked, row.status);
    await client.query('DELETE FROM tenant_archives WHERE tenant_id = $1', [tenantId]);
  });
  fault?.('tenant-unarchive/committed');
  await deps.closePool(tenantId);
  await watchAgain(deps, tenantId);
  deps.forget();
  return {
    tenant_id: tenantId,
    status: found.status,
    tables: manifest.tables.length,
    rows: manifest.tables.reduce((sum, table) => sum + table.rows, 0),
    behind: deps.migrations().length - applied.length,
  };
}

const tierOf = ({ tier }: Tenant): keyof typeof ROLE_LIMITS => (tier === 'discovered' ? 'standard' : tier);

/** The outside heartbeat was removed, so that nobody is woken by an archived tenant's silence. */
async function watchAgain({ pool, heartbeats, secrets }: UnarchiveDeps, tenantId: string): Promise<void> {
  if (heartbeats === undefined) return;
  const { service, period, grace } = heartbeats;
  const made = await service.ensure(heartbeatName(tenantId), { period, grace });
  await pool.query(
    `UPDATE tenant_monitors SET external_id = $2, secret = $3 WHERE tenant_id = $1 AND kind = 'heartbeat'`,
    [tenantId, made.id, secrets.seal(made.url, `tenant_monitors/${tenantId}`)],
  );
}
