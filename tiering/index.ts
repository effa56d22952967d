export { type RunResult, runArchive } from './archive/run.ts';
export { createTieringJobs, requireDay } from './jobs.ts';
export * from './layout.ts';
export type { LogPosition, Manifest, ManifestFile, TenantTotals } from './manifest.ts';
export * from './ports.ts';
