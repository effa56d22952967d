import type { ClientBase } from 'pg';

/** A table partitioned by time; its column and chunk width are in the catalogue that the engine keeps. */
export interface TimeTable {
  table: string;
  /** timestamptz column that it is partitioned by */
  column: string;
  /** width of a chunk in milliseconds; chunks begin at multiples of it since the Unix epoch */
  chunkMs: number;
}

/** One chunk: [from, to) in Unix milliseconds. */
export interface Chunk {
  table: string;
  name: string;
  from: number;
  to: number;
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
   * Runs in transactions of its own on `client`, which must not be in one.
   */
  ensureChunks(client: ClientBase, table: TimeTable, times: Iterable<number>): Promise<void>;
  listChunks(client: ClientBase, table: TimeTable): Promise<Chunk[]>;
  /** Takes a chunk out of the table and keeps it as a plain table of the same name. */
  detachChunk(client: ClientBase, chunk: Chunk): Promise<void>;
  /** Drops a chunk, attached or detached. */
  dropChunk(client: ClientBase, chunk: Chunk): Promise<void>;
  /** Compresses a chunk where the engine can; native returns false. */
  compressChunk(client: ClientBase, chunk: Chunk): Promise<boolean>;
  /** Forgets what it remembers of existing chunks, after a write found one missing. */
  forget(): void;
}
