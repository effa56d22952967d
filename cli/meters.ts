/** What defined meters need beside the processors: the job that counts their past. */
import type { Pool } from 'pg';
import { createBackfillJob } from '../processors/index.ts';
import type { Job } from '../schemas/index.ts';
import type { EventLog, StorageEngine } from '../sinks/index.ts';

export const meterJobs = ({ pool, engine, log }: { pool: Pool; engine: StorageEngine; log: EventLog }): Job[] => [
  createBackfillJob({ pool, engine, topic: log.topic }),
];
