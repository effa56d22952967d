import { schemaOf } from '../../schema/names.ts';
import { applyTenantMigrations } from '../../tenant-migrations/apply.ts';
import type { ProvisioningStep } from '../step.ts';

/** The schema at its newest version. Its undo is the schema's: it goes with it. */
export const migrationsStep = (): ProvisioningStep => ({
  name: 'tenant_migrations',
  apply: async (client, { tenantId }) => {
    await applyTenantMigrations(client, schemaOf(tenantId));
  },
});
