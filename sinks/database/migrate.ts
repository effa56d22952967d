import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type pg from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { atOnce, withTransaction } from './connect.ts';
import type { SqlSession } from './engines/port.ts';
import type { Extension } from './engines/timescale/extension.ts';
import { convertEmptyTables, prepareExtension } from './engines/timescale/hypertables.ts';

export interface Migration {
  version: number;
  name: string;
  sql: string;
  sha256: string;
}

const FOLDER = new URL('../../schemas/sql/', import.meta.url);

/** The numbered SQL files, in order; each room counts in its own tens, so numbers may skip. @throws Error when numbers repeat or a name is malformed */
export function readMigrations(folder: URL = FOLDER): Migration[] {
  const files = readdirSync(folder)
    .filter((file) => file.endsWith('.sql'))
    .sort();
  let last = 0;
  return files.map((file) => {
    const match = /^(\d{4})_([a-z0-9_]+)\.sql$/.exec(file);
    const version = Number(match?.[1]);
    if (match?.[2] === undefined || version <= last)
      throw new Error(`migration ${file}: expected a number above ${last} as NNNN_name.sql`);
    last = version;
    const sql = readFileSync(new URL(file, folder), 'utf8');
    return { version, name: match[2], sql, sha256: createHash('sha256').update(sql).digest('hex') };
  });
}

/**
 * Applies what is missing, all in one transaction: all or nothing. Safe when several processes start at once: the table
 * itself is the lock, since an advisory one could be held by any role that can connect.
 * Where TimescaleDB is there, time tables become hypertables while they are empty.
 * @param options `hypertables: false` keeps them natively partitioned wherever this runs
 * @returns versions applied now
 * @throws TidemarkError `migration_changed` | `migration_missing`
 */
export async function migrate(
  pool: pg.Pool,
  migrations: readonly Migration[] = readMigrations(),
  { hypertables = true }: { hypertables?: boolean } = {},
): Promise<number[]> {
  await createHistory(pool);
  const extension = hypertables ? await prepareExtension(pool) : undefined;
  return withTransaction(pool, (client) => applyMigrations(client, migrations, extension));
}

/** The same on a session of the caller's, within its transaction and after `createHistory`. */
export async function applyMigrations(
  client: SqlSession,
  migrations: readonly Migration[],
  extension: Extension | undefined,
): Promise<number[]> {
  await client.query('LOCK TABLE schema_migrations IN EXCLUSIVE MODE');
  const missing = await pending(client, migrations);
  for (const { version, name, sql, sha256 } of missing) {
    await client.query(sql);
    await client.query('INSERT INTO schema_migrations (version, name, sha256) VALUES ($1, $2, $3)', [
      version,
      name,
      sha256,
    ]);
    // At once: what later migrations build on a time table is built on the hypertable.
    if (extension !== undefined) await convertEmptyTables(client, extension);
  }
  // TimescaleDB came after the migrations, perhaps before the data.
  if (extension !== undefined && missing.length === 0) await convertEmptyTables(client, extension);
  return missing.map((one) => one.version);
}

/** The schema and the table that everything begins with. */
export async function createHistory(session: SqlSession): Promise<void> {
  await atOnce(async () => {
    await session.query('CREATE SCHEMA IF NOT EXISTS tidemark');
    await session.query(
      'CREATE TABLE IF NOT EXISTS schema_migrations (version int PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())',
    );
  });
}

/** Whether every migration of this build is applied, unchanged. */
export async function isMigrated(pool: pg.Pool): Promise<boolean> {
  return (await pending(pool, readMigrations())).length === 0;
}

async function pending(client: SqlSession, migrations: readonly Migration[]): Promise<Migration[]> {
  const { rows } = await client.query<{ version: number; name: string; sha256: string }>(
    'SELECT version, name, sha256 FROM schema_migrations ORDER BY version',
  );
  for (const row of rows) {
    const ours = migrations.find((one) => one.version === row.version);
    if (ours === undefined)
      throw new TidemarkError(
        'migration_missing',
        `the database has migration ${row.version} (${row.name}), which this build lacks`,
      );
    if (ours.sha256 !== row.sha256)
      throw new TidemarkError(
        'migration_changed',
        `migration ${row.version} (${ours.name}) was changed after it was applied`,
      );
  }
  return migrations.filter((one) => !rows.some((row) => row.version === one.version));
}
