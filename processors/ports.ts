import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Meter, TenantDirectory } from '../schemas/index.ts';
import type { EventLog, StorageEngine } from '../sinks/index.ts';

export interface ProcessorSettings {
  /** most events in one transaction */
  batchEvents: number;
  /** most bytes of records in one transaction */
  batchBytes: number;
  /** pause between the starts of two batches of a partition while it does not lag, so that batches are worth a commit */
  lingerMs: number;
  /** rollup rows kept in memory, all partitions together */
  cacheRows: number;
  dedupeMemoryBytes: number;
  dedupeSealKeys: number;
  /** idempotency window */
  windowMs: number;
  unknownTenants: 'create' | 'reject';
  /** how often changed meter definitions are looked for */
  meterRefreshMs: number;
  /** groups of a meter and tenant beyond which further ones are counted together */
  groupsMax: number;
  /** least time between two looks for coarse rollups that late events have made stale; 0: after every batch */
  refoldMs: number;
}

/** Places at which a test may stop the process; `fault` is called with each as it is passed. */
export const STEPS = [
  'read',
  'prepared',
  'begun',
  'fenced',
  'claimed',
  'raw',
  'withdrawn',
  'rolled-up',
  'accounted',
  'dead-lettered',
  'committed',
  'folded',
  'coarse',
  'merged',
] as const;
export type Step = (typeof STEPS)[number];

export interface ProcessorDeps {
  pool: Pool;
  engine: StorageEngine;
  log: EventLog;
  directory: TenantDirectory;
  settings: ProcessorSettings;
  /** built in; defined ones are read from the database, and watched */
  meters: readonly Meter[];
  logger: Logger;
  now(): number;
  fault?(step: Step): void;
}

/** Counters since start, for metrics. */
export interface ProcessorMetrics {
  batches: number;
  received: number;
  accepted: number;
  duplicate: number;
  deadLettered: number;
  rollupRows: number;
  commitSeconds: number;
  prepareSeconds: number;
  failures: number;
  /** groups that were counted in `other` */
  groupsFolded: number;
}

/** Another owner took the partition over: nothing was changed, nothing may be. */
export class Fenced extends Error {
  override name = 'Fenced';
}

/** What an owner holds in memory was taken away (a tenant purged, or undone): start over from the database. */
export class Forgotten extends Error {
  override name = 'Forgotten';
}
