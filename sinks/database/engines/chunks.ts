/** What both engines agree on: how wide a chunk is, what it is called, and that one is made at a time. */
import { quoteIdentifier } from '../connect.ts';
import type { Interval, SqlSession, TimeTable } from './port.ts';

const DAY = 86_400_000;
/** One chunk is created at a time in a database. A row: any role that can connect could hold an advisory lock. */
const CREATE_LOCK = `SELECT FROM tidemark.control_locks WHERE name = 'chunks' FOR UPDATE`;

/** The chunk that `time` falls into: its place in the grid, cut to the hole that chunks of another width leave. */
export function intervalOf(time: number, widthMs: number, existing: readonly Interval[]): Interval {
  let from = Math.floor(time / widthMs) * widthMs;
  let to = from + widthMs;
  for (const one of existing) {
    if (one.to <= time) from = Math.max(from, one.to);
    if (one.from > time) to = Math.min(to, one.from);
  }
  return { from, to };
}

/** `events_20261124`, or `events_20261124_06` where it begins within a day. */
export function chunkName(table: string, from: number): string {
  const text = iso(from);
  const hour = from % DAY === 0 ? '' : `_${text.slice(11, 13)}`;
  return `${table}_${text.slice(0, 10).replaceAll('-', '')}${hour}`;
}

/** When a chunk of that name begins, Unix ms; undefined where the name is no chunk's. */
export function chunkStart(name: string): number | undefined {
  const [, year, month, day, hour = '0'] = /_(\d{4,6})(\d\d)(\d\d)(?:_(\d\d))?$/.exec(name) ?? [];
  return year === undefined ? undefined : Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour));
}

export const iso = (ms: number): string => new Date(ms).toISOString();

/** Which chunks exist, as far as this process knows. */
export class KnownChunks {
  readonly #chunks = new Map<string, readonly Interval[]>();

  has(table: string, time: number): boolean {
    // From the newest: that is where almost every event falls.
    return this.#chunks.get(table)?.findLast((one) => one.from <= time && time < one.to) !== undefined;
  }

  set(table: string, chunks: readonly Interval[]): void {
    this.#chunks.set(table, chunks);
  }

  forget(table?: string): void {
    if (table === undefined) this.#chunks.clear();
    else this.#chunks.delete(table);
  }
}

/** How an engine lists a table's chunks and makes one, within a transaction. */
export interface ChunkMaker {
  /** width of a chunk of this table, ms */
  width(table: TimeTable): number;
  intervals(client: SqlSession, table: TimeTable): Promise<Interval[]>;
  create(client: SqlSession, table: TimeTable, name: string, interval: Interval): Promise<void>;
}

/**
 * Makes what is missing for `times`, a transaction each, one process at a time: CREATE TABLE IF NOT EXISTS alone is not
 * safe against another one's (unique violations in the catalogue).
 */
export async function createMissing(
  client: SqlSession,
  table: TimeTable,
  times: Iterable<number>,
  known: KnownChunks,
  maker: ChunkMaker,
): Promise<void> {
  for (const time of times) {
    if (known.has(table.table, time)) continue;
    await client.query('BEGIN');
    try {
      await client.query(CREATE_LOCK);
      const existing = await maker.intervals(client, table);
      if (!existing.some((one) => one.from <= time && time < one.to)) {
        const interval = intervalOf(time, maker.width(table), existing);
        await maker.create(client, table, chunkName(table.table, interval.from), interval);
        existing.push(interval);
      }
      await client.query('COMMIT');
      known.set(table.table, existing);
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    }
  }
}

/** A plain table with the columns of a time table, without its indexes. */
export async function createDetached(client: SqlSession, { table }: TimeTable, name: string): Promise<void> {
  await client.query(
    `CREATE TABLE ${quoteIdentifier(name)} (LIKE ${quoteIdentifier(table)} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)`,
  );
}

/** Tables in chunks of a day take the width of the settings; wider ones keep their own. */
export const widthWith = (chunkMs: number) => (table: TimeTable) => (table.chunkMs === DAY ? chunkMs : table.chunkMs);
