import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { connect, migrate, withTransaction } from '../../sinks/index.ts';
import { dropTenantSchema, prepareDatabase, schemaOf, watchOnce } from '../../tenants/index.ts';
import { withDatabase } from '../support/database-server.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { loginAs, openTestTenancy, silent } from '../support/tenants.ts';

/** As on a managed PostgreSQL: the administrator may make roles and owns the database, and is no superuser. */
const NAME = `plain_${randomBytes(6).toString('hex')}`;
let database: TestDatabase;

async function asSuperuser(...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: inject('databaseUrl') });
  await client.connect();
  for (const sql of statements) await client.query(sql);
  await client.end();
}

beforeAll(async () => {
  await asSuperuser(`CREATE ROLE ${NAME} LOGIN CREATEROLE PASSWORD 'plain'`, `CREATE DATABASE ${NAME} OWNER ${NAME}`);
  const url = new URL(withDatabase(inject('databaseUrl'), NAME));
  url.username = NAME;
  url.password = 'plain';
  const pool = connect(url.toString(), { max: 8, name: 'tidemark-test' });
  await migrate(pool);
  database = { url: url.toString(), pool, drop: () => pool.end() };
});
afterAll(async () => {
  await database.drop();
  await asSuperuser(`DROP DATABASE ${NAME} WITH (FORCE)`);
});

test('P7, P11: an administrator that is no superuser provisions, isolates, watches and removes', async () => {
  expect((await prepareDatabase(database.pool)).stillOpen).toContain('pg_advisory_lock');
  const tenancy = await openTestTenancy(database);
  const [one, two] = [await tenancy.create('plain-one', true), await tenancy.create('plain-two', true)];
  expect([one.state?.status, two.state?.status]).toEqual(['ready', 'ready']);
  const session = await loginAs(await tenancy.urlOf(one.id));
  expect((await session.query('SELECT count(*)::int AS n FROM agents')).rows).toEqual([{ n: 5 }]);
  expect((await session.query('SELECT * FROM usage_events')).rows).toEqual([]);
  for (const sql of [
    `SELECT * FROM ${schemaOf(two.id)}.agents`,
    'SELECT * FROM tidemark.tenants',
    `SET ROLE ${schemaOf(two.id)}`,
    `SET ROLE ${NAME}`,
    'CREATE TEMP TABLE t (x int)',
    'CREATE TABLE public.t (x int)',
  ])
    await expect(session.query(sql)).rejects.toMatchObject({ code: '42501' });
  // Large objects can't be taken from PUBLIC by whoever is no superuser: they are removed.
  await session.query('SELECT lo_create(0)');
  await session.query(`ALTER ROLE ${schemaOf(one.id)} SET statement_timeout = 0`);
  expect(await watchOnce({ pool: database.pool, logger: silent })).toMatchObject({ restored: 1, objects: 1 });
  await session.end();
  for (const { id } of [one, two])
    await withTransaction(database.pool, async (client) => {
      await client.query('DELETE FROM tenant_schemas WHERE tenant_id = $1', [id]);
      await dropTenantSchema(client, id);
    });
  expect(
    (await database.pool.query(`SELECT FROM pg_roles WHERE rolname LIKE $1`, [`${schemaOf(one.id)}%`])).rowCount,
  ).toBe(0);
  await tenancy.stop();
});
