/** With DATABASE_URL benches run on that server, each in a database of its own: TimescaleDB beside the embedded PostgreSQL. */
import { basename } from 'node:path';
import pg from 'pg';

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
  const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
  await client.connect();
  await client.query(`DROP DATABASE IF EXISTS ${nameOf(data)} WITH (FORCE)`);
  await client.query(`CREATE DATABASE ${nameOf(data)} TEMPLATE template0`);
  await client.end();
}

const nameOf = (data: string): string => `bench_${basename(data).replaceAll(/\W/g, '_')}`;
