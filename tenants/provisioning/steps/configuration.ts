import { tierConfiguration } from '../../configuration.ts';
import type { ProvisioningStep } from '../step.ts';

/** Limits and feature flags that the tier gives. */
export const configurationStep = (): ProvisioningStep => ({
  name: 'configuration',
  apply: async (client, { tenantId, request }) => {
    const { limits, features } = tierConfiguration(request.tier);
    await client.query('INSERT INTO tenant_settings (tenant_id, limits, features) VALUES ($1, $2, $3)', [
      tenantId,
      limits,
      features,
    ]);
  },
  undo: async (client, { tenantId }) => {
    await client.query('DELETE FROM tenant_settings WHERE tenant_id = $1', [tenantId]);
  },
});
