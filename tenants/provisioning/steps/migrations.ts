import { schemaOf } from '../../schema/names.ts';
import { applyTenantMigrations, type TenantMigration } from '../../tenant-migrations/index.ts';
import type { ProvisioningStep } from '../step.ts';

/** The schema at its newest version. Its undo is the schema's: it goes with it. */
export const migrationsStep = (deps: { migrations(): readonly TenantMigration[] }): ProvisioningStep => ({
  name: 'tenant_migrations',
  apply: async (client, { tenantId }) => {
    await applyTenantMigrations(client, schemaOf(tenantId), deps.migrations());
  },
});
