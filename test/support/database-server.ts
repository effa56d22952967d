import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { connect, migrate, startEmbeddedPostgres } from '../../sinks/index.ts';

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string;
    /** name of the migrated database that tests copy */
    databaseTemplate: string;
  }
}

/** One real PostgreSQL for the whole run: DATABASE_URL, or the embedded one in a folder that is removed afterwards. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-test-'));
  const server = process.env.DATABASE_URL === undefined ? await startEmbeddedPostgres(folder) : undefined;
  const url = process.env.DATABASE_URL ?? server?.url ?? '';
  // Another run may be at work on the same server.
  const name = `tidemark_template_${randomBytes(4).toString('hex')}`;
  const admin = async (...statements: string[]) => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    for (const statement of statements) await client.query(statement);
    await client.end();
  };
  await admin(`CREATE DATABASE ${name} TEMPLATE template0`);
  const template = connect(withDatabase(url, name), { max: 1, name: 'tidemark-test' });
  await migrate(template);
  await template.end();
  // TimescaleDB's scheduler would keep it busy, and a busy template can't be copied.
  await admin(
    `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`,
  );
  project.provide('databaseUrl', url);
  project.provide('databaseTemplate', name);
  return async () => {
    if (server === undefined) await admin(`DROP DATABASE ${name} WITH (FORCE)`);
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  };
}

export function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.toString();
}
