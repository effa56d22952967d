import type { Tier } from '../schemas/index.ts';
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
