/** With DATABASE_URL benches run on that server, each in a database of its own: TimescaleDB beside the embedded PostgreSQL. */
import { basename } from 'node:path';
import pg from 'pg';

/** Databases that were made and not dropped. */
const made = new Set<string>();

/** URL of the database that goes with a data folder; undefined: the embedded one. */
export function databaseOf(data: string): string | undefined {
  if (!process.env.DATABASE_URL) return undefined;
  const url = new URL(process.env.DATABASE_URL);
  url.pathname = `/${nameOf(data)}`;
  return url.toString();
}

/** Makes it anew, empty. */
export async function remakeDatabase(data: string): Promise<void> {
  if (!process.env.DATABASE_URL) return;
  const name = nameOf(data);
  await asAdmin(process.env.DATABASE_URL, async (client) => {
    await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    await client.query(`CREATE DATABASE ${name} TEMPLATE template0`);
  });
  made.add(name);
}

/** Makes it anew, as another one is that nobody is connected to. */
export async function copyDatabase(from: string, to: string): Promise<void> {
  if (!process.env.DATABASE_URL) return;
  await asAdmin(process.env.DATABASE_URL, async (client) => {
    await client.query(`DROP DATABASE IF EXISTS ${nameOf(to)} WITH (FORCE)`);
    await client.query(`CREATE DATABASE ${nameOf(to)} TEMPLATE ${nameOf(from)}`);
  });
  made.add(nameOf(to));
}

/** Drops what was made: another server's disk is not ours to fill. */
export async function dropDatabases(): Promise<void> {
  if (!process.env.DATABASE_URL) return;
  await asAdmin(process.env.DATABASE_URL, async (client) => {
    for (const name of made) await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  });
  made.clear();
}

/** What the server of DATABASE_URL is called beside the figures: `TimescaleDB 2.28.3`, `PostgreSQL 17.2`; undefined: the embedded one. */
export async function externalServer(): Promise<{ kind: string; version: string } | undefined> {
  if (!process.env.DATABASE_URL) return undefined;
  return asAdmin(process.env.DATABASE_URL, async (client) => {
    const { rows } = await client.query<{ postgres: string; timescale: string | null }>(
      `SELECT split_part(current_setting('server_version'), ' ', 1) AS postgres,
         (SELECT default_version FROM pg_available_extensions
          WHERE name = 'timescaledb' AND current_setting('timescaledb.max_background_workers', true) IS NOT NULL) AS timescale`,
    );
    const { postgres = '', timescale = null } = rows[0] ?? {};
    return timescale === null
      ? { kind: 'PostgreSQL', version: postgres }
      : { kind: 'TimescaleDB', version: `${timescale}, PostgreSQL ${postgres}` };
  });
}

async function asAdmin<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const nameOf = (data: string): string => `bench_${basename(data).replaceAll(/\W/g, '_')}`;
