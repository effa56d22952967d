import type { Pool } from 'pg';
import { TidemarkError, type Tier } from '../schemas/index.ts';
import { ROLE_LIMITS } from './schema/tenant-schema.ts';

/** What a tenant may use, and which features it has. */
export interface TenantConfiguration {
  limits: {
    /** connections of its own role to the database */
    connections: number;
    statement_seconds: number;
    idle_in_transaction_seconds: number;
    /** of its dedicated pool */
    pool: { initial: number; most: number };
  };
  /** by name; operators may add their own */
  features: Record<string, boolean>;
}

const FEATURES: Record<Exclude<Tier, 'discovered'>, Record<string, boolean>> = {
  free: { sql_access: true, percentiles: true, exports: false, read_replica: false },
  standard: { sql_access: true, percentiles: true, exports: true, read_replica: false },
  enterprise: { sql_access: true, percentiles: true, exports: true, read_replica: true },
};

/** What a tier gives. */
export function tierConfiguration(tier: Exclude<Tier, 'discovered'>): TenantConfiguration {
  const { connections, statementSeconds, idleInTransactionSeconds } = ROLE_LIMITS[tier];
  return {
    limits: {
      connections,
      statement_seconds: statementSeconds,
      idle_in_transaction_seconds: idleInTransactionSeconds,
      pool: { initial: 2, most: 5 },
    },
    features: FEATURES[tier],
  };
}

/** What holds for a tenant now, and what watches it. @throws TidemarkError `tenant_unprovisioned` */
export async function tenantConfiguration(pool: Pool, tenantId: string) {
  const { rows } = await pool.query<TenantConfiguration>(
    'SELECT limits, features FROM tenant_settings WHERE tenant_id = $1',
    [tenantId],
  );
  if (rows[0] === undefined) throw new TidemarkError('tenant_unprovisioned', 'the tenant has no configuration');
  const { rows: monitors } = await pool.query<{ kind: string; name: string; definition: object }>(
    'SELECT kind, name, definition FROM tenant_monitors WHERE tenant_id = $1 ORDER BY kind, name',
    [tenantId],
  );
  return { ...rows[0], monitors };
}
