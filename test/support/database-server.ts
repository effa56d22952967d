import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { connect, migrate, startEmbeddedPostgres } from '../../sinks/index.ts';

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string;
  }
}

/** Name of the migrated database that tests copy. */
export const TEMPLATE = 'tidemark_template';

/** One real PostgreSQL for the whole run: DATABASE_URL, or the embedded one in a folder that is removed afterwards. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-test-'));
  const server = process.env.DATABASE_URL === undefined ? await startEmbeddedPostgres(folder) : undefined;
  const url = process.env.DATABASE_URL ?? server?.url ?? '';
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  await admin.query(`DROP DATABASE IF EXISTS ${TEMPLATE}`);
  await admin.query(`CREATE DATABASE ${TEMPLATE}`);
  await admin.end();
  const template = connect(withDatabase(url, TEMPLATE), { max: 1, name: 'tidemark-test' });
  await migrate(template);
  await template.end();
  // TimescaleDB's scheduler would keep it busy, and a busy template can't be copied.
  const closer = new pg.Client({ connectionString: url });
  await closer.connect();
  await closer.query(`ALTER DATABASE ${TEMPLATE} ALLOW_CONNECTIONS false`);
  await closer.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [TEMPLATE]);
  await closer.end();
  project.provide('databaseUrl', url);
  return async () => {
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  };
}

export function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.toString();
}
