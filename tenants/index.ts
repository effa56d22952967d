export { listInactive } from './archival/inactive.ts';
export { createArchivalJobs } from './archival/jobs.ts';
export { createBackupJobs } from './backup/jobs.ts';
export { type BackupManifest, listBackups, readManifest } from './backup/manifest.ts';
export { type RestoreDeps, restoreBackup } from './backup/restore.ts';
export { takeBackup } from './backup/take.ts';
export { tenantConfiguration } from './configuration.ts';
export * from './health/index.ts';
export { type AuditEntry, type AuditTrail, listAudit, openAuditTrail } from './isolation/audit.ts';
export { type Prepared, prepareDatabase } from './isolation/prepare-database.ts';
export { startWatchdog, watchOnce } from './isolation/watchdog.ts';
export { createKey, type KeyRecord, listKeys, revokeKey } from './keys.ts';
export { exportTenant } from './lifecycle/export.ts';
export { createHeartbeatJob } from './lifecycle/heartbeats.ts';
export {
  deleteTenant,
  resumeTenant,
  rotateKeys,
  suspendTenant,
  updateTenant,
} from './lifecycle/lifecycle.ts';
export { createPurgeJob } from './lifecycle/purge.ts';
export { requireSchemaHere } from './lifecycle/state.ts';
export * from './pools/index.ts';
export type { Begun, NewTenant } from './provisioning/begin.ts';
export {
  findProvisioning,
  type NumberedEvent,
  type ProvisioningEvent,
  type ProvisioningState,
  provisioningEvents,
} from './provisioning/progress.ts';
export { Provisioner, type ProvisionerDeps } from './provisioning/provisioner.ts';
export type { ProvisioningStep, StepContext } from './provisioning/step.ts';
export type { TenantPoolPort } from './provisioning/steps/pool.ts';
export { provisioningSteps, type StepDeps } from './provisioning/steps.ts';
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
export { tenantUrl } from './schema/tenant-url.ts';
export { openSecretBox, type SecretBox } from './secrets/cipher.ts';
export { createMoveJob, MOVE_JOB, type MoveDeps, type Moved, moveTenant } from './shards/move-tenant.ts';
export {
  addShard,
  listShards,
  type NewShard,
  openShardDatabases,
  pickShard,
  type Shard,
  type ShardDatabases,
} from './shards/shards.ts';
export type { Tenancy } from './tenancy.ts';
export { poolsForProvisioning } from './tenant-login.ts';
export * from './tenant-migrations/index.ts';
export { listTenants } from './tenants.ts';
