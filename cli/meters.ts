/** What defined meters need beside the processors: the job that counts their past. */
import type { Pool } from 'pg';
import { createBackfillJob } from '../processors/index.ts';
import type { Job } from '../schemas/index.ts';
import { type EventLog, NativeEngine } from '../sinks/index.ts';

export const meterJobs = ({ pool, log }: { pool: Pool; log: EventLog }): Job[] => [
  createBackfillJob({ pool, engine: new NativeEngine(), topic: log.topic }),
];
