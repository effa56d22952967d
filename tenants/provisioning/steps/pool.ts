import type { ProvisioningStep } from '../step.ts';

/** The tenant's own connections. */
export interface TenantPoolPort {
  /** Opens the tenant's pool and proves that its role can log in. Idempotent. */
  open(tenantId: string): Promise<void>;
  /** Closes it. Idempotent. */
  close(tenantId: string): Promise<void>;
}

export const poolStep = ({ pools }: { pools: TenantPoolPort }): ProvisioningStep => ({
  name: 'pool',
  call: ({ tenantId }) => pools.open(tenantId),
  undoCall: ({ tenantId }) => pools.close(tenantId),
});
