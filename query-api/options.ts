import type { Pool } from 'pg';
import type { JobQueue, MeterCatalogue, TenantDirectory } from '../schemas/index.ts';
import type { EventLog } from '../sinks/index.ts';
import type { BillingOptions } from './billing-options.ts';

/** What the reading routes need. */
export interface QueryOptions {
  pool: Pool;
  log: EventLog;
  directory: TenantDirectory;
  catalogue: MeterCatalogue;
  jobs: JobQueue;
  billing: BillingOptions;
  /** Unix ms */
  now(): number;
}
