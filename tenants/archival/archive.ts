/**
 * A tenant that is archived as a whole: closed first, so that nothing changes any more; backed up; the backup read back; then
 * its schema and roles go in one transaction. Usage, totals, statements, keys and configuration stay where they are.
 */
import { pipeline } from 'node:stream/promises';
import type { ClientBase, Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { type HeartbeatService, Measure, type ObjectStore } from '../../sinks/index.ts';
import { type BackupManifest, filesOf } from '../backup/manifest.ts';
import { takeBackup } from '../backup/take.ts';
import { changeTenant, type LockedTenant, requireMain, setLogin } from '../lifecycle/state.ts';
import { heartbeatName } from '../provisioning/steps/monitoring.ts';
import { schemaOf } from '../schema/names.ts';
import { dropTenantSchema } from '../schema/tenant-schema.ts';
import { appliedVersions } from '../tenant-migrations/apply.ts';

export interface ArchivalDeps {
  pool: Pool;
  objects: ObjectStore;
  heartbeats: HeartbeatService | undefined;
  /** closes the tenant's connections of this process */
  closePool(tenantId: string): Promise<void>;
  /** a change of status is seen by this process at once */
  forget(): void;
  fault?: ((point: string) => void) | undefined;
}

export interface ArchiveRequest {
  tenantId: string;
  reason: string;
  /** who asked */
  by: string;
}

export interface TenantArchived extends Record<string, unknown> {
  tenant_id: string;
  backup: string;
  /** what the schema took in the database, and the backup takes in the store */
  schema_bytes: number;
  stored_bytes: number;
}

const FIND = `
  SELECT state, backup, schema_bytes::float8 AS schema_bytes, stored_bytes::float8 AS stored_bytes FROM tenant_archives WHERE tenant_id = $1`;
const OPEN = `
  INSERT INTO tenant_archives (tenant_id, status, reason, requested_by, schema_bytes)
  SELECT $1, $2, $3, $4, coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
  WHERE relnamespace = to_regnamespace($5) AND relkind IN ('r', 'm', 'S')`;
const STORED = `
  UPDATE tenant_archives SET state = 'stored', backup = $2, stored_bytes = $3,
    secret = (SELECT secret FROM tenant_schemas WHERE tenant_id = $1) WHERE tenant_id = $1 AND state = 'storing'
  RETURNING schema_bytes::float8 AS schema_bytes`;

interface ArchiveRow {
  state: 'storing' | 'stored';
  backup: string | null;
  schema_bytes: number;
  stored_bytes: number | null;
}

/**
 * Safe to run again after a crash at any point. What fails opens the tenant again.
 * @throws TidemarkError `tenant_unprovisioned`, `tenant_on_shard`, `tenant_deleted`, `backup_damaged`
 */
export async function archiveTenant(
  deps: ArchivalDeps,
  request: ArchiveRequest,
  signal: AbortSignal,
): Promise<TenantArchived> {
  const { tenantId } = request;
  const known = await close(deps, request);
  if (known.state === 'storing')
    try {
      deps.fault?.('tenant-archive/closed');
      const manifest = await takeBackup(deps, tenantId, signal);
      deps.fault?.('tenant-archive/backed-up');
      await readBack(deps.objects, manifest, signal);
      deps.fault?.('tenant-archive/read-back');
      await leave(deps, tenantId, manifest);
      deps.fault?.('tenant-archive/left');
    } catch (error) {
      if (!signal.aborted) await reopenTenant(deps, tenantId);
      throw error;
    }
  await deps.heartbeats?.remove(heartbeatName(tenantId));
  deps.forget();
  const row = (await deps.pool.query<ArchiveRow>(FIND, [tenantId])).rows[0];
  return {
    tenant_id: tenantId,
    backup: row?.backup ?? '',
    schema_bytes: row?.schema_bytes ?? 0,
    stored_bytes: row?.stored_bytes ?? 0,
  };
}

/** Nobody logs in or sends from now on. */
async function close(deps: ArchivalDeps, { tenantId, reason, by }: ArchiveRequest): Promise<Pick<ArchiveRow, 'state'>> {
  const found = await changeTenant(deps.pool, tenantId, async (client, locked) => {
    const row = (await client.query<ArchiveRow>(FIND, [tenantId])).rows[0];
    if (locked.tenant.status === 'archived' && row !== undefined) return row;
    requireArchivable(locked);
    await client.query(OPEN, [tenantId, locked.tenant.status, reason, by, schemaOf(tenantId)]);
    await client.query(`UPDATE tenants SET status = 'archived' WHERE id = $1`, [tenantId]);
    await setLogin(client, locked, false);
    return { state: 'storing' } as const;
  });
  await deps.closePool(tenantId);
  deps.forget();
  return found;
}

/** @throws TidemarkError why a tenant can't be archived */
export function requireArchivable({ tenant, provisioned, shard }: LockedTenant): void {
  if (tenant.status === 'deleted') throw new TidemarkError('tenant_deleted', 'the tenant is deleted');
  if (!provisioned) throw new TidemarkError('tenant_unprovisioned', 'the tenant has no schema of its own');
  requireMain(shard);
}

/** Every file as the store gives it back. @throws TidemarkError `backup_damaged` */
async function readBack(objects: ObjectStore, manifest: BackupManifest, signal: AbortSignal): Promise<void> {
  for (const { key, bytes, sha256 } of filesOf(manifest)) {
    signal.throwIfAborted();
    const measure = new Measure();
    measure.resume();
    await pipeline(await objects.get(key), measure);
    if (measure.bytes !== bytes || measure.digest() !== sha256)
      throw new TidemarkError('backup_damaged', `${key} is not what was written`);
  }
}

/** Schema, roles, and what was known of them: one transaction. */
function leave({ pool, fault }: ArchivalDeps, tenantId: string, manifest: BackupManifest): Promise<void> {
  return changeTenant(pool, tenantId, async (client) => {
    const now = await appliedVersions(client, schemaOf(tenantId));
    if (now.length !== manifest.migrations.length)
      throw new TidemarkError('conflict', 'the schema was migrated meanwhile: archive the tenant again');
    const bytes = filesOf(manifest).reduce((sum, file) => sum + file.bytes, 0);
    const { rowCount } = await client.query(STORED, [tenantId, manifest.id, bytes]);
    if (rowCount === 0) throw new TidemarkError('conflict', 'the tenant was opened again meanwhile');
    await client.query('DELETE FROM tenant_schemas WHERE tenant_id = $1', [tenantId]);
    await dropTenantSchema(client, tenantId);
    fault?.('tenant-archive/dropped');
  });
}

/** Ends an archiving that has not taken anything away yet. Idempotent. */
export async function reopenTenant(deps: ArchivalDeps, tenantId: string): Promise<void> {
  await changeTenant(deps.pool, tenantId, async (client, locked) => {
    const { rows } = await client.query<{ status: string }>(
      `DELETE FROM tenant_archives WHERE tenant_id = $1 AND state = 'storing' RETURNING status`,
      [tenantId],
    );
    if (rows[0] !== undefined) await openAs(client, locked, rows[0].status);
  });
  deps.forget();
}

/** The status that it had, and the login that goes with it. */
export async function openAs(client: ClientBase, locked: LockedTenant, status: string): Promise<void> {
  // Deleted meanwhile: it stays so.
  if (locked.tenant.status !== 'archived') return;
  await client.query('UPDATE tenants SET status = $2 WHERE id = $1', [locked.tenant.id, status]);
  await setLogin(client, { ...locked, provisioned: true }, status === 'ready');
}
