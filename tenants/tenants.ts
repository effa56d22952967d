import type { Pool } from 'pg';
import type { Tenant } from '../schemas/index.ts';
import { TENANT_COLUMNS, type TenantRow, toTenant } from '../sinks/index.ts';

/** Tenants by customer_id, after `after`. */
export async function listTenants(pool: Pool, after: string, limit: number): Promise<Tenant[]> {
  const { rows } = await pool.query<TenantRow>(
    `SELECT ${TENANT_COLUMNS} FROM tenants WHERE customer_id > $1 AND purged_at IS NULL ORDER BY customer_id LIMIT $2`,
    [after, limit],
  );
  return rows.map(toTenant);
}
