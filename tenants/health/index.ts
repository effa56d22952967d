export { FINDINGS, type Finding, findAnomalies, isOutlier, type Limits, type Look } from './anomalies.ts';
export { createHealthJob, type HealthDeps } from './health-job.ts';
export { listSchemaHealth, type SchemaHealth } from './list-health.ts';
