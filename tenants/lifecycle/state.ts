import type { ClientBase, Pool } from 'pg';
import { type Tenant, TidemarkError } from '../../schemas/index.ts';
import { quoteIdentifier, TENANT_COLUMNS, type TenantRow, toTenant, withTransaction } from '../../sinks/index.ts';
import { loginRoleOf } from '../schema/names.ts';
import { endSessions } from '../schema/tenant-schema.ts';

const LOCK = `
  SELECT ${TENANT_COLUMNS}, purged_at IS NOT NULL AS purged,
    EXISTS (SELECT FROM tenant_schemas AS s WHERE s.tenant_id = tenants.id) AS provisioned
  FROM tenants WHERE id = $1 FOR UPDATE`;

/** A tenant's row, locked. */
export interface LockedTenant {
  tenant: Tenant;
  /** has a schema and roles of its own */
  provisioned: boolean;
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
    const { rows } = await client.query<TenantRow & { purged: boolean; provisioned: boolean }>(LOCK, [tenantId]);
    const row = rows[0];
    if (row === undefined || row.purged) throw new TidemarkError('not_found', `there is no tenant ${tenantId}`);
    const tenant = toTenant(row);
    if (tenant.status === 'provisioning' || tenant.status === 'failed')
      throw new TidemarkError('tenant_not_ready', `the tenant is ${tenant.status}`);
    return change(client, { tenant, provisioned: row.provisioned });
  });
}

export async function readTenant(client: ClientBase, tenantId: string): Promise<Tenant> {
  const { rows } = await client.query<TenantRow>(`SELECT ${TENANT_COLUMNS} FROM tenants WHERE id = $1`, [tenantId]);
  if (rows[0] === undefined) throw new TidemarkError('not_found', `there is no tenant ${tenantId}`);
  return toTenant(rows[0]);
}

/** Lets the tenant's role log in, or not; sessions that it has are ended with it. */
export async function setLogin(client: ClientBase, { tenant, provisioned }: LockedTenant, may: boolean): Promise<void> {
  if (!provisioned) return;
  await client.query(`ALTER ROLE ${quoteIdentifier(loginRoleOf(tenant.id))} ${may ? 'LOGIN' : 'NOLOGIN'}`);
  if (!may) await endSessions(client, tenant.id);
}
