export { type AppliedVersion, appliedVersions, applyTenantMigrations } from './apply.ts';
export { oldSchemaOf } from './blue-green.ts';
export { driveMigration } from './drive.ts';
export { dryRun, limit } from './dry-run.ts';
export { dropKeptSchemas } from './kept.ts';
export type { MigrationDeps } from './places.ts';
export { type MigrationPlan, planMigration, STRATEGIES, type Strategy } from './plan.ts';
export { readTenantMigrations, type TenantMigration } from './read.ts';
export {
  getRun,
  listRuns,
  listTargets,
  type MigrationRun,
  pauseRun,
  RUN_STATUSES,
  type RunOptions,
  resumeRun,
  retryTargets,
  skipTarget,
  type Target,
} from './runs.ts';
export { createMigrationJob, MIGRATION_JOB, startMigration, startRollback } from './service.ts';
export { diffStructures, readStructure, type Structure, type StructureDiff } from './structure.ts';
export { wavesOf } from './waves.ts';
