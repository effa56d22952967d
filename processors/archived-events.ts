/** What processors need of tiering: raw events that have left the database. The composition root gives it to them. */
import type { ClientBase, Pool } from 'pg';
import type { RawEventRow } from '../schemas/index.ts';

/** [from, to) in Unix ms, within one day. */
export interface ArchivedRange {
  from: number;
  to: number;
  /** null: all */
  tenantIds: readonly string[] | null;
  type?: string | undefined;
}

/** What of one day (UTC) is in the archive, at one moment. */
export interface ArchivedDay {
  /** another one, or none, as soon as rows move between database and archive */
  version: string;
  /** Each event once, in any order, a few thousand in memory. @throws TidemarkError `archive_frozen`, `archive_damaged` */
  read(range: ArchivedRange): AsyncIterable<RawEventRow[]>;
}

export interface ArchivedEvents {
  /** Starts of the days that have archived events, Unix ms, ascending. */
  days(database: Pool | ClientBase): Promise<number[]>;
  open(database: Pool | ClientBase, day: number): Promise<ArchivedDay | undefined>;
  /** Of the day as the database says it now; undefined: nothing of it is archived. */
  versionOf(database: Pool | ClientBase, day: number): Promise<string | undefined>;
}
