import type { Pool } from 'pg';
import { type Tenant, TidemarkError, type Tier } from '../schemas/index.ts';
import { TENANT_COLUMNS, type TenantRow, toTenant } from '../sinks/index.ts';

export interface NewTenant {
  slug: string;
  name: string;
  customerId?: string | undefined;
  email?: string | undefined;
  tier?: Tier | undefined;
}

/** A tenant that events have made known keeps its UUID, and with it everything it was metered for. */
const CREATE = `
  INSERT INTO tenants (customer_id, slug, name, email, tier, status) VALUES ($1, $2, $3, $4, $5, 'ready')
  ON CONFLICT (customer_id) DO UPDATE SET slug = excluded.slug, name = excluded.name, email = excluded.email, tier = excluded.tier, status = 'ready'
    WHERE tenants.status = 'discovered'
  RETURNING ${TENANT_COLUMNS}`;

/** @throws TidemarkError `conflict` when the slug or the customer_id is taken */
export async function createTenant(pool: Pool, tenant: NewTenant): Promise<Tenant> {
  try {
    const { rows } = await pool.query<TenantRow>(CREATE, [
      tenant.customerId ?? tenant.slug,
      tenant.slug,
      tenant.name,
      tenant.email ?? null,
      tenant.tier ?? 'standard',
    ]);
    if (rows[0] === undefined)
      throw new TidemarkError('conflict', `customer_id ${tenant.customerId ?? tenant.slug} exists`);
    return toTenant(rows[0]);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === '23505')
      throw new TidemarkError('conflict', `slug ${tenant.slug} is taken`, { cause: error });
    throw error;
  }
}

/** Tenants by customer_id, after `after`. */
export async function listTenants(pool: Pool, after: string, limit: number): Promise<Tenant[]> {
  const { rows } = await pool.query<TenantRow>(
    `SELECT ${TENANT_COLUMNS} FROM tenants WHERE customer_id > $1 AND status <> 'deleted' ORDER BY customer_id LIMIT $2`,
    [after, limit],
  );
  return rows.map(toTenant);
}
