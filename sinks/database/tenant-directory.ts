import type pg from 'pg';
import { TENANT_STATUSES, type Tenant, type TenantDirectory, TIERS } from '../../schemas/index.ts';

/** Columns of a tenant, as `toTenant` reads them. */
export const TENANT_COLUMNS = 'id, customer_id, slug, name, email, tier, status, created_at';

export interface TenantRow {
  id: string;
  customer_id: string;
  slug: string | null;
  name: string;
  email: string | null;
  tier: string;
  status: string;
  created_at: Date;
}

export function toTenant(row: TenantRow): Tenant {
  return {
    id: row.id,
    customerId: row.customer_id,
    slug: row.slug,
    name: row.name,
    email: row.email,
    tier: TIERS.find((tier) => tier === row.tier) ?? 'standard',
    status: TENANT_STATUSES.find((status) => status === row.status) ?? 'failed',
    createdAt: row.created_at,
  };
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
/** Entries kept; beyond it the cache starts anew. */
const MOST = 100_000;

const DISCOVER = `
  INSERT INTO tenants (customer_id, name, tier, status)
  SELECT name, name, 'discovered', 'discovered' FROM unnest($1::text[]) AS name ORDER BY name
  ON CONFLICT (customer_id) DO NOTHING`;

/**
 * Tenants by name, cached for `ttlMs`: a change of tier or status is seen that much later at most.
 * While the database is away, what is cached stays good.
 */
export function openTenantDirectory(pool: pg.Pool, { ttlMs = 10_000, now = Date.now } = {}): TenantDirectory {
  const byCustomer = new Map<string, { tenant: Tenant; until: number }>();
  const byReference = new Map<string, { tenant: Tenant; until: number }>();

  const remember = (row: TenantRow): Tenant => {
    const tenant = toTenant(row);
    if (byCustomer.size > MOST) byCustomer.clear();
    byCustomer.set(tenant.customerId, { tenant, until: now() + ttlMs });
    return tenant;
  };

  const load = async (names: readonly string[]): Promise<TenantRow[]> => {
    const { rows } = await pool.query<TenantRow>({
      name: 'tenants_by_customer',
      text: `SELECT ${TENANT_COLUMNS} FROM tenants WHERE customer_id = ANY ($1::text[])`,
      values: [names],
    });
    return rows;
  };

  const findAll = async (customerIds: readonly string[]): Promise<Map<string, Tenant>> => {
    const found = new Map<string, Tenant>();
    const missing: string[] = [];
    for (const name of new Set(customerIds)) {
      const cached = byCustomer.get(name);
      if (cached !== undefined && cached.until > now()) found.set(name, cached.tenant);
      else missing.push(name);
    }
    if (missing.length > 0) for (const row of await load(missing)) found.set(row.customer_id, remember(row));
    return found;
  };

  const stale = new Set<string>();
  let refreshing = false;
  /** Asks for stale tenants: for all that one body names together, with one question at a time. */
  const refresh = async (): Promise<void> => {
    if (refreshing) return;
    refreshing = true;
    // The body that is being scanned may name more.
    await Promise.resolve();
    while (stale.size > 0) {
      const names = [...stale];
      stale.clear();
      // Without an answer what is cached stays good.
      const rows = await load(names).catch(() => undefined);
      if (rows === undefined) continue;
      for (const name of names) byCustomer.delete(name);
      rows.forEach(remember);
    }
    refreshing = false;
  };

  return {
    peek: (customerId) => {
      const cached = byCustomer.get(customerId);
      if (cached === undefined) return undefined;
      if (cached.until <= now()) {
        // Good until the answer is here.
        cached.until = now() + ttlMs;
        stale.add(customerId);
        void refresh();
      }
      return cached.tenant;
    },
    find: async (reference) => {
      if (reference.includes('\0')) return undefined;
      const cached = byReference.get(reference);
      if (cached !== undefined && cached.until > now()) return cached.tenant;
      const { rows } = await pool.query<TenantRow>(
        `SELECT ${TENANT_COLUMNS} FROM tenants WHERE customer_id = $1 OR slug = $1 OR id = $2 ORDER BY customer_id = $1 DESC, slug = $1 DESC LIMIT 1`,
        [reference, UUID.test(reference) ? reference : null],
      );
      if (rows[0] === undefined) return undefined;
      if (byReference.size > MOST) byReference.clear();
      const tenant = toTenant(rows[0]);
      byReference.set(reference, { tenant, until: now() + ttlMs });
      return tenant;
    },
    findAll,
    forget: () => {
      byCustomer.clear();
      byReference.clear();
    },
    discover: async (customerIds) => {
      const found = await findAll(customerIds);
      const missing = [...new Set(customerIds)].filter((name) => !found.has(name));
      if (missing.length === 0) return found;
      await pool.query(DISCOVER, [missing]);
      for (const row of await load(missing)) found.set(row.customer_id, remember(row));
      return found;
    },
  };
}
