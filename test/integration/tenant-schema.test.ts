import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { withTransaction } from '../../sinks/index.ts';
import {
  applyTenantMigrations,
  createTenantSchema,
  dropTenantSchema,
  loginRoleOf,
  ownerRoleOf,
  prepareDatabase,
  ROLE_LIMITS,
  readTenantMigrations,
  schemaOf,
  tenantIdOf,
} from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
const ID = '0d7c6f3a-5a6b-4c1d-9e2f-aabbccddeeff';

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

const create = (id: string) =>
  withTransaction(database.pool, async (client) => {
    await createTenantSchema(client, id, { password: 'secret', limits: ROLE_LIMITS.standard });
    return applyTenantMigrations(client, schemaOf(id));
  });

test('names carry the UUID alone, and lead back to it', () => {
  expect(tenantIdOf(schemaOf(ID))).toBe(ID);
  expect(() => schemaOf(`${ID}"`)).toThrow(RangeError);
});

test('the database is prepared once by however many processes; PUBLIC has nothing left', async () => {
  const all = await Promise.all([1, 2, 3].map(() => prepareDatabase(database.pool)));
  expect(all).toEqual([{ stillOpen: [] }, { stillOpen: [] }, { stillOpen: [] }]);
  const { rows } = await database.pool.query(
    `SELECT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
     WHERE c.relnamespace = 'tidemark'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition AND NOT c.relrowsecurity
       -- hypertables and their chunks, where TimescaleDB keeps the time series
       AND c.relname !~ '^(events|rollups_(minute|hour|coarse)|members_(minute|hour))(_[0-9_]+)?$'`,
  );
  expect(rows).toEqual([]);
});

test('P7: a tenant has its schema, its login role owns nothing, its views show its rows', async () => {
  expect(await create(ID)).toEqual(readTenantMigrations().map((one) => one.version));
  const url = new URL(database.url);
  url.username = loginRoleOf(ID);
  url.password = 'secret';
  const client = new pg.Client({ connectionString: url.toString() });
  await client.connect();
  await client.query(`INSERT INTO agents (name, agent_type) VALUES ('a', 'b')`);
  expect((await client.query('SELECT name FROM agents')).rows).toEqual([{ name: 'a' }]);
  for (const view of ['usage_events', 'usage_rollups_minute', 'usage_accounting'])
    expect((await client.query(`SELECT * FROM ${view}`)).rows).toEqual([]);
  await client.end();
  const { rows } = await database.pool.query(
    'SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE relnamespace = to_regnamespace($1)',
    [schemaOf(ID)],
  );
  expect(rows.map((row) => row.owner).sort()).toEqual([ownerRoleOf(ID), expect.stringMatching(/^tidemark_reader_/)]);
});

test('P11: dropped, nothing is left', async () => {
  await withTransaction(database.pool, (client) => dropTenantSchema(client, ID));
  await withTransaction(database.pool, (client) => dropTenantSchema(client, ID));
  const { rows } = await database.pool.query('SELECT rolname FROM pg_roles WHERE rolname LIKE $1', [
    `${schemaOf(ID)}%`,
  ]);
  expect(rows).toEqual([]);
  expect(await create(ID)).not.toEqual([]);
});
