import type { Pool } from 'pg';
import type { TenantDirectory } from '../schemas/index.ts';
import type { EventLog } from '../sinks/index.ts';

/** What the reading routes need. */
export interface QueryOptions {
  pool: Pool;
  log: EventLog;
  directory: TenantDirectory;
  /** Unix ms */
  now(): number;
}
