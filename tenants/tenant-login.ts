import { TidemarkError } from '../schemas/index.ts';
import type { TenantPools } from './pools/index.ts';
import type { TenantPoolPort } from './provisioning/steps/pool.ts';

/** What provisioning asks of the pools: that the tenant's role can log in and sees its own schema; and that nothing is left. */
export function poolsForProvisioning(pools: TenantPools): TenantPoolPort {
  return {
    open: async (tenantId) => {
      await pools.use(tenantId, (connection) => connection.query('SELECT FROM usage_accounting LIMIT 1'));
      // Many new tenants at once must not hold the budget with connections that nobody uses yet.
      pools.evict(tenantId, new TidemarkError('pool_timeout', 'the connection was for the proof alone'));
    },
    close: async (tenantId) => pools.evict(tenantId, new TidemarkError('not_found', 'the tenant is being removed')),
  };
}
