export { createKey, type KeyRecord, listKeys, revokeKey } from './keys.ts';
export { createTenant, listTenants, type NewTenant } from './tenants.ts';
