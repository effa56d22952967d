/** What meters need beside the processors: the jobs that count the past, of new ones and again. */
import type { Pool } from 'pg';
import { BUILTIN_METERS } from '../metering/index.ts';
import { bringMinutesBack, createBackfillJob, createVerifyJob } from '../processors/index.ts';
import type { Job, Settings } from '../schemas/index.ts';
import type { EventLog, StorageEngine } from '../sinks/index.ts';
import { type ArchiveReader, archivedEventsOf, type TieringDeps } from '../tiering/index.ts';
import { faultFrom } from './fault.ts';

interface MeterDeps {
  pool: Pool;
  engine: StorageEngine;
  archive: ArchiveReader;
  settings: Settings;
}

const recountOf = ({ pool, engine, archive, settings }: MeterDeps) => ({
  pool,
  engine,
  archive: archivedEventsOf(archive),
  rowsMax: settings.ROLLUP_CACHE_ROWS,
  groupsMax: settings.METER_GROUPS_MAX,
  meters: BUILTIN_METERS,
});

export const meterJobs = (deps: MeterDeps & { log: EventLog }): Job[] => [
  createBackfillJob({
    ...recountOf(deps),
    topic: deps.log.topic,
    fault: faultFrom(process.env.TIDEMARK_TEST_KILL_AT),
  }),
  createVerifyJob(recountOf(deps)),
];

/** What a day that comes back needs of meters. */
export const minutesOf =
  (deps: MeterDeps): Required<TieringDeps>['bringMinutesBack'] =>
  (day, signal) =>
    bringMinutesBack(recountOf(deps), day, signal);
