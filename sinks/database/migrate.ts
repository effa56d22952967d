import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type pg from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from './connect.ts';

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
 * @returns versions applied now
 * @throws TidemarkError `migration_changed` | `migration_missing`
 */
export async function migrate(pool: pg.Pool, migrations: readonly Migration[] = readMigrations()): Promise<number[]> {
  await createHistory(pool);
  return withTransaction(pool, async (client) => {
    await client.query('LOCK TABLE schema_migrations IN EXCLUSIVE MODE');
    const missing = await pending(client, migrations);
    for (const { version, name, sql, sha256 } of missing) {
      await client.query(sql);
      await client.query('INSERT INTO schema_migrations (version, name, sha256) VALUES ($1, $2, $3)', [
        version,
        name,
        sha256,
      ]);
    }
    return missing.map((one) => one.version);
  });
}

/** The schema and the table that everything begins with. */
async function createHistory(pool: pg.Pool): Promise<void> {
  for (let attempt = 1; ; attempt++)
    try {
      await pool.query('CREATE SCHEMA IF NOT EXISTS tidemark');
      await pool.query(
        'CREATE TABLE IF NOT EXISTS schema_migrations (version int PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())',
      );
      return;
    } catch (error) {
      // IF NOT EXISTS is not safe against another process at the same moment (unique violations in the catalogue).
      const code = error instanceof Error && 'code' in error ? error.code : '';
      if (attempt === 10 || !/^(23505|42P06|42P07|42710)$/.test(String(code))) throw error;
    }
}

/** Whether every migration of this build is applied, unchanged. */
export async function isMigrated(pool: pg.Pool): Promise<boolean> {
  return (await pending(pool, readMigrations())).length === 0;
}

async function pending(
  client: Pick<pg.ClientBase, 'query'> | pg.Pool,
  migrations: readonly Migration[],
): Promise<Migration[]> {
  const query = client.query.bind(client) as pg.ClientBase['query'];
  const { rows } = await query<{ version: number; name: string; sha256: string }>(
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
