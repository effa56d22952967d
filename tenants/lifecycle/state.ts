import type { ClientBase, Pool } from 'pg';
import { type Tenant, TidemarkError } from '../../schemas/index.ts';
import { quoteIdentifier, TENANT_COLUMNS, type TenantRow, toTenant, withTransaction } from '../../sinks/index.ts';
import { loginRoleOf } from '../schema/names.ts';
import { endSessions } from '../schema/tenant-schema.ts';

const LOCK = `
  SELECT ${TENANT_COLUMNS}, shard, purged_at IS NOT NULL AS purged,
    EXISTS (SELECT FROM tenant_schemas AS s WHERE s.tenant_id = tenants.id) AS provisioned
  FROM tenants WHERE id = $1 FOR UPDATE`;

/** A tenant's row, locked. */
export interface LockedTenant {
  tenant: Tenant;
  /** has a schema and roles of its own */
  provisioned: boolean;
  /** where its schema and roles are */
  shard: string;
}

/**
 * Changes a tenant in one transaction with its row locked.
 * @throws TidemarkError `not_found` (also of a purged one), `tenant_not_ready` while it is being provisioned
 */
export function changeTenant<T>(
  pool: Pool,
  tenantId: string,
  change: (client: ClientBase, locked: LockedTenant) => Promise<T>,
): Promise<T> {
  return withTransaction(pool, async (client) => {
    const { rows } = await client.query<TenantRow & { purged: boolean; provisioned: boolean; shard: string }>(LOCK, [
      tenantId,
    ]);
    const row = rows[0];
    if (row === undefined || row.purged) throw new TidemarkError('not_found', `there is no tenant ${tenantId}`);
    const tenant = toTenant(row);
    if (tenant.status === 'provisioning' || tenant.status === 'failed')
      throw new TidemarkError('tenant_not_ready', `the tenant is ${tenant.status}`);
    return change(client, { tenant, provisioned: row.provisioned, shard: row.shard });
  });
}

/** What needs the tenant's schema or roles waits until it is back. @throws TidemarkError `tenant_archived` */
export function requireHere({ tenant }: Pick<LockedTenant, 'tenant'>): void {
  if (tenant.status === 'archived') throw new TidemarkError('tenant_archived', 'the tenant is archived');
}

/** Roles and schemas are changed on the platform's own database. @throws TidemarkError `tenant_on_shard` */
export function requireMain(shard: string): void {
  if (shard !== 'main') throw new TidemarkError('tenant_on_shard', `the tenant lives on the shard ${shard}`);
}

/** @throws TidemarkError `tenant_on_shard`, `tenant_unprovisioned` */
export async function requireSchemaHere(client: Pick<ClientBase, 'query'>, tenantId: string): Promise<void> {
  const { rows } = await client.query<{ shard: string }>(
    'SELECT t.shard FROM tenants AS t JOIN tenant_schemas AS s ON s.tenant_id = t.id WHERE t.id = $1',
    [tenantId],
  );
  if (rows[0] === undefined) throw new TidemarkError('tenant_unprovisioned', 'the tenant has no schema of its own');
  requireMain(rows[0].shard);
}

export async function readTenant(client: ClientBase, tenantId: string): Promise<Tenant> {
  const { rows } = await client.query<TenantRow>(`SELECT ${TENANT_COLUMNS} FROM tenants WHERE id = $1`, [tenantId]);
  if (rows[0] === undefined) throw new TidemarkError('not_found', `there is no tenant ${tenantId}`);
  return toTenant(rows[0]);
}

/** Lets the tenant's role log in, or not; sessions that it has are ended with it. */
export async function setLogin(
  client: ClientBase,
  { tenant, provisioned, shard }: LockedTenant,
  may: boolean,
): Promise<void> {
  if (!provisioned) return;
  requireMain(shard);
  await client.query(`ALTER ROLE ${quoteIdentifier(loginRoleOf(tenant.id))} ${may ? 'LOGIN' : 'NOLOGIN'}`);
  if (!may) await endSessions(client, tenant.id);
}
