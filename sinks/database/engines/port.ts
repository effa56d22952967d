import type { QueryResultRow } from 'pg';

/** The part of a database connection that the engines use: a `pg` client, or anything that answers like one. */
export interface SqlSession {
  query<R extends QueryResultRow = QueryResultRow>(text: string, values?: unknown[]): Promise<{ rows: R[] }>;
}

/** A table partitioned by time; its column and chunk width are in the catalogue that the engine keeps. */
export interface TimeTable {
  table: string;
  /** timestamptz column that it is partitioned by */
  column: string;
  /** width of a chunk in milliseconds; chunks begin at multiples of it since the Unix epoch */
  chunkMs: number;
}

/** [from, to) in Unix milliseconds. */
export interface Interval {
  from: number;
  to: number;
}

export interface Chunk extends Interval {
  table: string;
  /** a relation of our schema, under either engine: `events_20261124` */
  name: string;
  /** with indexes, TOAST and what is compressed */
  bytes: number;
  compressed: boolean;
}

/**
 * The storage engine's port: tables partitioned by time, natively or by TimescaleDB.
 * Table names are ours (constants), never input.
 */
export interface StorageEngine {
  readonly name: 'native' | 'timescale';
  /**
   * Makes sure that chunks exist for all `times` (Unix ms). Idempotent, safe when several processes do it at once.
   * A table of the chunk's name that was detached before is attached again.
   * Runs in transactions of its own on `client`, which must not be in one.
   */
  ensureChunks(client: SqlSession, table: TimeTable, times: Iterable<number>): Promise<void>;
  /** In order of time. */
  listChunks(client: SqlSession, table: TimeTable): Promise<Chunk[]>;
  /** Takes a chunk out of the table and keeps it as a plain (uncompressed) table of the same name. */
  detachChunk(client: SqlSession, chunk: Chunk): Promise<void>;
  /** Makes a plain, empty table with the columns of `table`: filled, it can be attached as a chunk. */
  createDetached(client: SqlSession, table: TimeTable, name: string): Promise<void>;
  /** What takes long about attaching, done before anything is locked; `interval`: what its rows are within. */
  prepareDetached(client: SqlSession, table: TimeTable, name: string, interval: Interval): Promise<void>;
  /**
   * Makes a prepared table the chunk of that interval, which no chunk may reach into. In the caller's transaction, which
   * holds the row `chunks` of control_locks.
   */
  attachDetached(client: SqlSession, table: TimeTable, name: string, interval: Interval): Promise<void>;
  /** Drops a chunk, attached or detached; one that is gone already is no error. */
  dropChunk(client: SqlSession, chunk: Chunk): Promise<void>;
  /** Compresses a chunk, or what came late into a compressed one; false where the engine can't (native, Apache licence). */
  compressChunk(client: SqlSession, chunk: Chunk): Promise<boolean>;
  /** Forgets what it remembers of existing chunks, after a write found one missing. */
  forget(): void;
}
