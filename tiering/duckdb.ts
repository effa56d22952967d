import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance, type DuckDBValue } from '@duckdb/node-api';

/** One DuckDB in memory, with a bound: beyond it, it spills into a folder of its own. */
export interface Duck {
  run(sql: string, values?: readonly DuckDBValue[]): Promise<void>;
  rows(sql: string, values?: readonly DuckDBValue[]): Promise<Record<string, DuckDBValue>[]>;
  /** Reads as it computes: at most a few thousand rows are in memory. */
  stream(sql: string, values?: readonly DuckDBValue[]): AsyncIterable<Record<string, DuckDBValue>[]>;
  close(): Promise<void>;
}

/**
 * @param limits `isWriter`: tables are written in the order of their rows, and files are read anew each time, whatever was read
 * under the same name before
 */
export async function openDuck(limits: {
  scratch: string;
  memoryBytes: number;
  threads: number;
  isWriter?: boolean;
}): Promise<Duck> {
  await mkdir(limits.scratch, { recursive: true });
  const spill = await mkdtemp(join(limits.scratch, 'duck-'));
  const instance = await DuckDBInstance.create(':memory:', {
    memory_limit: `${Math.round(limits.memoryBytes / 1e6)}MB`,
    threads: String(limits.threads),
    temp_directory: spill,
    // What is ordered is ordered by ORDER BY; the order of arrival costs memory.
    preserve_insertion_order: String(limits.isWriter === true),
    enable_external_file_cache: String(limits.isWriter !== true),
    // Nothing is fetched, nothing beside the files that we name is read.
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
  });
  // A connection a query: they may run at once.
  const withConnection = async <T>(work: (connection: DuckDBConnection) => Promise<T>): Promise<T> => {
    const connection = await instance.connect();
    try {
      return await work(connection);
    } finally {
      connection.closeSync();
    }
  };
  return {
    run: (sql, values = []) => withConnection(async (connection) => void (await connection.run(sql, [...values]))),
    rows: (sql, values = []) =>
      withConnection(async (connection) => (await connection.runAndReadAll(sql, [...values])).getRowObjects()),
    stream: async function* (sql, values = []) {
      const connection = await instance.connect();
      try {
        yield* (await connection.stream(sql, [...values])).yieldRowObjects();
      } finally {
        connection.closeSync();
      }
    },
    close: async () => {
      instance.closeSync();
      await rm(spill, { recursive: true, force: true });
    },
  };
}

/** A text as a literal of DuckDB's SQL, where no parameter may stand: paths and lists of columns. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;
/** Files as read_parquet takes them. */
export const files = (paths: readonly string[]): string => `read_parquet([${paths.map(literal).join(', ')}])`;
