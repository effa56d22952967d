export { murmur2, partitionOf } from './partitioner.ts';
export { RateLimits } from './rate-limit.ts';
export { type CorrectionPlaces, type IngestMetrics, type IngestOptions, ingestRoutes } from './routes.ts';
export { ScanMemory, type ScannedBody, scanBody } from './scan-body.ts';
export type { BodyForm, IngestSettings, ScanContext } from './scan-context.ts';
