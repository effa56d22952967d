import type { ClientBase, Pool } from 'pg';
import type { RawEventRow } from '../../schemas/index.ts';
import { archivedDays } from '../archive/day-state.ts';
import { dayOf, startOf } from '../layout.ts';
import { toRaw } from './raw-events.ts';
import type { ArchiveReader, ArchiveSearch } from './reader.ts';

const EARLIEST = '0001-01-01';
const LATEST = '9999-12-31';

/** The archive by day, for those that count all of it. Times are Unix ms; each archived event comes once. */
export function archivedEventsOf(reader: ArchiveReader) {
  return {
    async days(database: Pool | ClientBase): Promise<number[]> {
      return (await archivedDays(database, EARLIEST, LATEST)).map((row) => startOf(row.day)).sort((a, b) => a - b);
    },

    async versionOf(database: Pool | ClientBase, day: number): Promise<string | undefined> {
      const [row] = await archivedDays(database, dayOf(day), dayOf(day));
      return row?.current?.sha256;
    },

    async open(database: Pool | ClientBase, day: number) {
      const [row] = await archivedDays(database, dayOf(day), dayOf(day));
      if (row?.current === undefined) return undefined;
      return {
        version: row.current.sha256,
        async *read(range: Pick<ArchiveSearch, 'from' | 'to' | 'tenantIds' | 'type'>): AsyncIterable<RawEventRow[]> {
          for await (const rows of reader.scan(range, [row])) yield rows.map(toRaw);
        },
      };
    },
  };
}
