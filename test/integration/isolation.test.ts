import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loginRoleOf, ownerRoleOf, schemaOf, watchOnce } from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { until } from '../support/server.ts';
import { addUsage, loginAs, openTestTenancy, silent } from '../support/tenants.ts';

let database: TestDatabase;
let tenancy: Awaited<ReturnType<typeof openTestTenancy>>;
let mallory: { id: string; slug: string };
let alice: { id: string; slug: string };

beforeAll(async () => {
  database = await createTestDatabase();
  tenancy = await openTestTenancy(database);
  mallory = await tenancy.create('mallory-ltd');
  alice = await tenancy.create('alice-secret-name', true);
  await addUsage(database, mallory.id, '7');
  await addUsage(database, alice.id, 'alice-user');
});
afterAll(async () => {
  await tenancy.stop();
  await database.drop();
});

/** A session of its own for each attack: none of them profits from another. */
async function attack<T>(work: (session: pg.Client) => Promise<T>): Promise<T> {
  const session = await loginAs(await tenancy.urlOf(mallory.id));
  try {
    return await work(session);
  } finally {
    await session.end();
  }
}

/** What PostgreSQL refuses; `{alice}` and `{mallory}` stand for their schemas and login roles. */
const REFUSED: [string, string][] = [
  ['another schema: read', 'SELECT * FROM {alice}.agents'],
  ['another schema: write', `INSERT INTO {alice}.agents (name, agent_type) VALUES ('x', 'y')`],
  ['another schema: its view of usage', 'SELECT * FROM {alice}.usage_events'],
  ['another schema: use it by search_path', `SET search_path = {alice}; SELECT * FROM agents`],
  ['another schema: drop it', 'DROP SCHEMA {alice} CASCADE'],
  ['the platform: raw events', 'SELECT * FROM tidemark.events'],
  ['the platform: tenants', 'SELECT * FROM tidemark.tenants'],
  ['the platform: keys', 'SELECT * FROM tidemark.api_keys'],
  ['the platform: stored secrets', 'SELECT secret FROM tidemark.tenant_schemas'],
  ['the platform: its functions', 'SELECT tidemark.sketch_value(1)'],
  ['SET ROLE to another tenant', 'SET ROLE {alice}'],
  ["SET ROLE to its own owner's role", 'SET ROLE {mallory}_owner'],
  ['SET ROLE to the platform', 'SET ROLE tidemark'],
  ['SET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION {alice}'],
  ['RESET ROLE, then read', 'RESET ROLE; SELECT * FROM tidemark.tenants'],
  ['a temporary table that shadows one of its own', 'CREATE TEMP TABLE agents (name text)'],
  ['a temporary table, said in the other way', 'CREATE TABLE pg_temp.agents (name text)'],
  ['a table in public', 'CREATE TABLE public.agents (name text)'],
  ['a table in its own schema', 'CREATE TABLE {mallory}.extra (x int)'],
  ['a schema', 'CREATE SCHEMA mine'],
  ['a function that shadows one of PostgreSQL', `CREATE FUNCTION lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'`],
  [
    'a function with search_path',
    `CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = {alice} AS 'SELECT 1'`,
  ],
  ['a SECURITY DEFINER function', `CREATE FUNCTION g() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'`],
  ['an operator that leaks', 'CREATE OPERATOR <<< (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)'],
  ['a chunk of the shared events', 'SELECT * FROM tidemark.events_20260105'],
  ["a background job of TimescaleDB's", `SELECT public.add_job('pg_sleep', '1 second')`],
  ['another view of usage', 'CREATE VIEW {mallory}.all_events AS SELECT * FROM tidemark.events'],
  ['its view of usage: changed', 'CREATE OR REPLACE VIEW {mallory}.usage_events AS SELECT 1'],
  ['its view of usage: without its barrier', 'ALTER VIEW {mallory}.usage_events SET (security_barrier = false)'],
  ['its view of usage: written through', `DELETE FROM {mallory}.usage_accounting`],
  [
    'its view of usage: locked against the platform',
    'BEGIN; LOCK TABLE {mallory}.usage_events IN ACCESS EXCLUSIVE MODE',
  ],
  ['its view of usage: rows locked', 'SELECT * FROM {mallory}.usage_accounting FOR UPDATE'],
  ['its own table: altered', 'ALTER TABLE {mallory}.agents ADD COLUMN x int'],
  ['its own table: dropped', 'DROP TABLE {mallory}.agents CASCADE'],
  [
    'its own table: a trigger',
    'CREATE TRIGGER t BEFORE INSERT ON {mallory}.agents EXECUTE FUNCTION suppress_redundant_updates_trigger()',
  ],
  ['its own table: truncated', 'TRUNCATE {mallory}.agents CASCADE'],
  ['row-level security: switched off', 'ALTER TABLE tidemark.accounting DISABLE ROW LEVEL SECURITY'],
  ['COPY … TO PROGRAM', `COPY (SELECT 1) TO PROGRAM 'id'`],
  ['COPY … FROM PROGRAM', `COPY {mallory}.agents FROM PROGRAM 'id'`],
  ['COPY … TO a file', `COPY (SELECT 1) TO '/tmp/tidemark-attack'`],
  ['COPY … FROM a file', `COPY {mallory}.agents FROM '/etc/passwd'`],
  ['pg_read_file', `SELECT pg_read_file('/etc/passwd')`],
  ['pg_ls_dir', `SELECT pg_ls_dir('.')`],
  ['large object: made', 'SELECT lo_create(0)'],
  ['large object: from bytes', `SELECT lo_from_bytea(0, 'x')`],
  ['large object: import of a file', `SELECT lo_import('/etc/passwd')`],
  ['advisory lock', 'SELECT pg_advisory_lock(1)'],
  ['advisory lock: tried', 'SELECT pg_try_advisory_xact_lock(1, 2)'],
  ['pg_terminate_backend of the platform', `SELECT pg_terminate_backend({platform_pid})`],
  ['pg_cancel_backend of the platform', `SELECT pg_cancel_backend({platform_pid})`],
  ['pg_reload_conf', 'SELECT pg_reload_conf()'],
  ['ALTER SYSTEM', `ALTER SYSTEM SET work_mem = '1GB'`],
  ['ALTER ROLE: superuser', 'ALTER ROLE {mallory} SUPERUSER'],
  ['ALTER ROLE: past row-level security', 'ALTER ROLE {mallory} BYPASSRLS'],
  ['ALTER ROLE: more connections', 'ALTER ROLE {mallory} CONNECTION LIMIT -1'],
  ['ALTER ROLE: another name', 'ALTER ROLE {mallory} RENAME TO alice'],
  ['ALTER ROLE: of another', `ALTER ROLE {alice} SET statement_timeout = 1`],
  ["another's password", `ALTER ROLE {alice} PASSWORD 'x'`],
  ['a setting of superusers', 'SET session_replication_role = replica'],
  ['a limit that a superuser gave', `SET temp_file_limit = '100GB'`],
  ['GRANT of a membership', 'GRANT {alice} TO {mallory}'],
  ['REASSIGN OWNED', 'REASSIGN OWNED BY {alice} TO {mallory}'],
  ['DROP OWNED of another', 'DROP OWNED BY {alice}'],
  ['a role', 'CREATE ROLE more LOGIN'],
  ['a database', 'CREATE DATABASE more'],
  ['an extension', 'CREATE EXTENSION dblink'],
  ['a publication', 'CREATE PUBLICATION p FOR ALL TABLES'],
  ['a replication slot', `SELECT pg_create_logical_replication_slot('s', 'test_decoding')`],
  ['a message in the write-ahead log', `SELECT pg_logical_emit_message(false, 'x', 'y')`],
  ['a prepared transaction', `BEGIN; SELECT 1; PREPARE TRANSACTION 'left-behind'`],
  ['pg_authid', 'SELECT rolpassword FROM pg_authid'],
  ['pg_statistic', 'SELECT * FROM pg_statistic'],
  ['an untrusted language', `DO LANGUAGE plpython3u $$ pass $$`],
  ['a hostile name: quotes', `SELECT * FROM "{alice}""; DROP TABLE agents; --".agents`],
  ['a hostile name: newline and Unicode', `SELECT * FROM "tenant\n☃".agents`],
];

const fill = (sql: string, platformPid: number) =>
  sql
    .replaceAll('{alice}', schemaOf(alice.id))
    .replaceAll('{mallory}', schemaOf(mallory.id))
    .replaceAll('{platform_pid}', String(platformPid));

describe('P7: SQL as a tenant: refused by PostgreSQL', () => {
  test.each(REFUSED)('%s', async (_what, sql) => {
    const platform = await database.pool.connect();
    try {
      const { rows } = await platform.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      await attack(async (session) => {
        // 42501 insufficient_privilege; the rest: no such thing can be named or made.
        await expect(session.query(fill(sql, rows[0]?.pid ?? 0))).rejects.toMatchObject({
          code: expect.stringMatching(/^(42501|42P01|3F000|0A000|42704|55000|58P01|42883)$/),
        });
      });
      expect((await platform.query('SELECT 1')).rowCount).toBe(1);
    } finally {
      platform.release();
    }
  });
});

describe('P7: SQL as a tenant: not refused, made harmless', () => {
  test('the catalogue shows UUIDs, never a slug, a name or a customer', async () => {
    const seen = await attack(async (session) => {
      const texts: string[] = [];
      for (const sql of [
        'SELECT nspname::text AS t FROM pg_namespace',
        'SELECT rolname::text AS t FROM pg_roles',
        'SELECT relname::text AS t FROM pg_class',
        'SELECT description AS t FROM pg_description',
        'SELECT description AS t FROM pg_shdescription',
        `SELECT coalesce(definition, '') AS t FROM pg_views`,
        'SELECT prosrc AS t FROM pg_proc',
        'SELECT array_to_string(setconfig, chr(10)) AS t FROM pg_db_role_setting',
        `SELECT coalesce(application_name, '') || coalesce(query, '') AS t FROM pg_stat_activity`,
        'SELECT most_common_vals::text AS t FROM pg_stats',
      ])
        texts.push(...(await session.query<{ t: string | null }>(sql)).rows.map((row) => row.t ?? ''));
      return texts.join('\n');
    });
    expect(seen).toContain(schemaOf(alice.id));
    for (const name of ['alice-secret-name', 'mallory-ltd', 'alice-user']) expect(seen).not.toContain(name);
  });

  test('views show the own rows alone, whatever runs against them', async () => {
    const { rows: views } = await database.pool.query<{ reloptions: string[] }>(
      `SELECT reloptions FROM pg_class WHERE relkind = 'v' AND relnamespace = to_regnamespace($1)`,
      [schemaOf(mallory.id)],
    );
    expect(views.length).toBeGreaterThan(5);
    for (const view of views) expect(view.reloptions).toEqual(['security_barrier=true']);
    await attack(async (session) => {
      expect((await session.query('SELECT user_id FROM usage_events')).rows).toEqual([{ user_id: '7' }]);
      // An operator that fails on the others' values would tell of them, were it asked before the predicate.
      expect((await session.query('SELECT user_id::int AS n FROM usage_events WHERE user_id::int < 10')).rows).toEqual([
        { n: 7 },
      ]);
      expect((await session.query('SELECT * FROM usage_accounting')).rowCount).toBe(1);
      await session.query('SET row_security = off');
      expect(
        (await session.query('SELECT * FROM usage_accounting').catch(() => ({ rowCount: 0 }))).rowCount,
      ).toBeLessThanOrEqual(1);
    });
  });

  test('row-level security is the second lock: a view with a wrong predicate still shows the own rows alone', async () => {
    const reader = (
      await database.pool.query<{ owner: string }>(
        `SELECT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE oid = to_regclass($1)`,
        [`${schemaOf(mallory.id)}.usage_accounting`],
      )
    ).rows[0]?.owner;
    await database.pool.query(`
      CREATE VIEW ${schemaOf(mallory.id)}.broken AS SELECT tenant_id FROM tidemark.accounting;
      ALTER VIEW ${schemaOf(mallory.id)}.broken OWNER TO ${reader};
      GRANT SELECT ON ${schemaOf(mallory.id)}.broken TO ${loginRoleOf(mallory.id)}`);
    await attack(async (session) => {
      expect((await session.query('SELECT * FROM broken')).rows).toEqual([{ tenant_id: mallory.id }]);
    });
    await database.pool.query(`DROP VIEW ${schemaOf(mallory.id)}.broken`);
  });

  test('LISTEN and NOTIFY reach nobody who trusts them', async () => {
    await attack(async (session) => {
      await session.query('LISTEN anything');
      await session.query(`NOTIFY anything, 'from mallory'`);
    });
    // Nothing of ours listens: a notification can be no more than a hint.
    const { rows } = await database.pool.query('SELECT pid FROM pg_stat_activity WHERE query ILIKE $1', ['LISTEN%']);
    expect(rows).toEqual([]);
  });

  test('GRANT of what it may use gives nobody anything', async () => {
    await attack(async (session) => {
      await session.query(`GRANT SELECT ON agents TO ${loginRoleOf(alice.id)}`).catch(() => undefined);
      await session.query(`GRANT USAGE ON SCHEMA ${schemaOf(mallory.id)} TO PUBLIC`).catch(() => undefined);
    });
    const session = await loginAs(await tenancy.urlOf(alice.id));
    await expect(session.query(`SELECT * FROM ${schemaOf(mallory.id)}.agents`)).rejects.toMatchObject({
      code: '42501',
    });
    await session.end();
  });

  test('its own settings, changed for good, are put back by the watchdog', async () => {
    await attack(async (session) => {
      await session.query(`ALTER ROLE ${loginRoleOf(mallory.id)} SET statement_timeout = 0`);
      await session.query(`ALTER ROLE ${loginRoleOf(mallory.id)} SET search_path = ${schemaOf(alice.id)}, pg_catalog`);
    });
    expect(await watchOnce({ pool: database.pool, logger: silent })).toMatchObject({ restored: 1 });
    expect(await watchOnce({ pool: database.pool, logger: silent })).toMatchObject({ restored: 0 });
    await attack(async (session) => {
      expect((await session.query('SHOW statement_timeout')).rows).toEqual([{ statement_timeout: '30s' }]);
      expect((await session.query('SHOW search_path')).rows).toEqual([{ search_path: schemaOf(mallory.id) }]);
    });
  });

  test('a query that would run for ever, and a transaction left open, are ended by the watchdog', async () => {
    const ended = attack(async (session) => {
      await session.query('SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0');
      return session.query('SELECT pg_sleep(3600)');
    });
    const outcome = ended.then(
      () => 'finished',
      (error: { code?: string }) => error.code ?? 'lost',
    );
    await until(async () => {
      const { rowCount } = await database.pool.query(
        `SELECT FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%pg_sleep%'`,
        [loginRoleOf(mallory.id)],
      );
      return rowCount === 0 ? undefined : true;
    });
    // Nothing waits half a minute in a test: the limit is taken down instead.
    await database.pool.query(
      `UPDATE tenant_settings SET limits = limits || '{"statement_seconds": 0, "idle_in_transaction_seconds": 0}' WHERE tenant_id = $1`,
      [mallory.id],
    );
    expect((await watchOnce({ pool: database.pool, logger: silent, graceSeconds: 0 })).ended).toBeGreaterThanOrEqual(1);
    expect(await outcome).toBe('57P01');
    await database.pool.query(
      `UPDATE tenant_settings SET limits = limits || '{"statement_seconds": 30, "idle_in_transaction_seconds": 30}' WHERE tenant_id = $1`,
      [mallory.id],
    );
  });

  test('its own password, changed, locks out itself alone; a new one is given by rotating', async () => {
    await attack((session) => session.query(`ALTER ROLE ${loginRoleOf(mallory.id)} PASSWORD 'mine now'`));
    const other = await loginAs(await tenancy.urlOf(alice.id));
    await other.end();
    await expect(loginAs(await tenancy.urlOf(mallory.id))).rejects.toMatchObject({ code: '28P01' });
  });

  test('the login role owns nothing, the owner role can not log in, neither has an attribute', async () => {
    const { rows } = await database.pool.query(
      `SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin,
         EXISTS (SELECT FROM pg_class WHERE relowner = r.oid) AS owns FROM pg_roles AS r WHERE rolname LIKE $1 ORDER BY 1`,
      [`${schemaOf(alice.id)}%`],
    );
    const nothing = {
      rolsuper: false,
      rolcreaterole: false,
      rolcreatedb: false,
      rolreplication: false,
      rolbypassrls: false,
    };
    expect(rows).toEqual([
      { rolname: loginRoleOf(alice.id), ...nothing, rolcanlogin: true, owns: false },
      { rolname: ownerRoleOf(alice.id), ...nothing, rolcanlogin: false, owns: true },
    ]);
  });
});
