/** What defined meters need beside the processors: the job that counts their past. */
import type { Pool } from 'pg';
import { createBackfillJob } from '../processors/index.ts';
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
}): Job[] => [
  createBackfillJob({
    pool,
    engine,
    archive: archivedEventsOf(archive),
    topic: log.topic,
    groupsMax: settings.METER_GROUPS_MAX,
    rowsMax: settings.ROLLUP_CACHE_ROWS,
  }),
];
