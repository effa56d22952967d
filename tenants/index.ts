export { type Prepared, prepareDatabase } from './isolation/prepare-database.ts';
export { createKey, type KeyRecord, listKeys, revokeKey } from './keys.ts';
export * from './pools/index.ts';
export { loginRoleOf, ownerRoleOf, schemaOf, tenantIdOf } from './schema/names.ts';
export { SHARED_VIEWS, type SharedView } from './schema/shared-views.ts';
export {
  createSchemaBeside,
  createTenantSchema,
  dropTenantSchema,
  endSessions,
  ROLE_LIMITS,
  type RoleLimits,
} from './schema/tenant-schema.ts';
export { applyTenantMigrations } from './tenant-migrations/apply.ts';
export { readTenantMigrations, type TenantMigration } from './tenant-migrations/read.ts';
export { createTenant, listTenants, type NewTenant } from './tenants.ts';
