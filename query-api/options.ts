import type { Pool } from 'pg';
import type { JobQueue, KeyStore, MeterCatalogue, TenantDirectory } from '../schemas/index.ts';
import type { EventLog } from '../sinks/index.ts';
import type { Tenancy } from '../tenants/index.ts';
import type { ArchiveReader, TieringDeps } from '../tiering/index.ts';
import type { BillingOptions } from './billing-options.ts';

/** What the reading routes need. */
export interface QueryOptions {
  pool: Pool;
  log: EventLog;
  directory: TenantDirectory;
  keys: KeyStore;
  catalogue: MeterCatalogue;
  jobs: JobQueue;
  billing: BillingOptions;
  tenancy: Tenancy;
  tiering: TieringDeps;
  archive: ArchiveReader;
  /** Unix ms */
  now(): number;
}
