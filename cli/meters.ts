/** What meters need beside the processors: the jobs that count the past, of new ones and again. */
import type { Pool } from 'pg';
import { BUILTIN_METERS } from '../metering/index.ts';
import { createBackfillJob, createVerifyJob } from '../processors/index.ts';
import type { Job, Settings } from '../schemas/index.ts';
import type { EventLog, StorageEngine } from '../sinks/index.ts';
import { type ArchiveReader, archivedEventsOf } from '../tiering/index.ts';

export const meterJobs = ({
  pool,
  engine,
  log,
  archive,
  settings,
}: {
  pool: Pool;
  engine: StorageEngine;
  log: EventLog;
  archive: ArchiveReader;
  settings: Settings;
}): Job[] => {
  const deps = { pool, engine, archive: archivedEventsOf(archive), rowsMax: settings.ROLLUP_CACHE_ROWS };
  return [
    createBackfillJob({ ...deps, topic: log.topic, groupsMax: settings.METER_GROUPS_MAX }),
    createVerifyJob({ ...deps, meters: BUILTIN_METERS }),
  ];
};
