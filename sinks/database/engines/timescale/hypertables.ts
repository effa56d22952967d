/**
 * Time tables as hypertables. The migrations make them as natively partitioned tables, for every PostgreSQL; where
 * TimescaleDB is there, each is made anew as a hypertable while it is still empty, in the transaction of its migration.
 */
import { TIME_TABLES } from '../../../../schemas/index.ts';
import { atOnce, quoteIdentifier } from '../../connect.ts';
import type { SqlSession, TimeTable } from '../port.ts';
import { type Extension, findAvailable, findExtension, isUsable } from './extension.ts';

const TABLES: readonly TimeTable[] = Object.values(TIME_TABLES);
/** Rollup rows are rewritten while their window is open; chunks inherit it. */
const FILLFACTOR: Record<string, number> = { rollups_minute: 70, rollups_hour: 70 };

/** Time tables that are declaratively partitioned; `bound`: has partitions, row security, or is used by a view or policy. */
const NATIVE = `
  SELECT c.relname AS table,
    c.relrowsecurity OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)
      OR EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_class'::regclass AND refobjid = c.oid AND classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass)) AS bound
  FROM pg_class AS c WHERE c.relkind = 'p' AND c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1::text[])`;
const HYPERTABLES = `
  SELECT count(*)::int AS n FROM timescaledb_information.hypertables
  WHERE hypertable_schema = current_schema() AND hypertable_name = ANY ($1::text[])`;
const CONSTRAINTS = `
  SELECT conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
  WHERE conrelid = to_regclass($1) AND contype IN ('p', 'u', 'x')`;
const INDEXES = `
  SELECT pg_get_indexdef(i.indexrelid) AS definition FROM pg_index AS i
  WHERE i.indrelid = to_regclass($1) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)`;
const GRANTS = `
  SELECT a.privilege_type AS privilege, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
  FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = to_regclass($1) AND a.grantee <> c.relowner`;

/**
 * Whether a fresh database gets hypertables: TimescaleDB is there and good for it. One that the server has loaded but
 * nobody created in this database is created, where we may.
 */
export async function prepareExtension(client: SqlSession): Promise<Extension | undefined> {
  let extension = await findExtension(client);
  if (extension === undefined && (await findAvailable(client)) !== undefined) {
    try {
      await atOnce(() => client.query('CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public'));
    } catch (error) {
      // 42501: not ours to create; the native engine serves, and `tidemark doctor` says what to type.
      if (!(error instanceof Error && 'code' in error && error.code === '42501')) throw error;
    }
    extension = await findExtension(client);
  }
  return extension !== undefined && isUsable(extension) ? extension : undefined;
}

/**
 * Makes hypertables of all time tables that are not; does nothing where one of them has data or dependents already:
 * never a mixture of both engines. Within the caller's transaction.
 * @returns tables that were changed
 */
export async function convertEmptyTables(client: SqlSession, extension: Extension): Promise<string[]> {
  const names = TABLES.map((one) => one.table);
  const { rows } = await client.query<{ table: string; bound: boolean }>(NATIVE, [names]);
  if (rows.length === 0 || rows.some((row) => row.bound)) return [];
  const converted = TABLES.filter((one) => rows.some((row) => row.table === one.table));
  for (const table of converted) await convert(client, extension, table);
  return converted.map((one) => one.table);
}

/** Whether the time tables of this database are hypertables. */
export async function hasHypertables(client: SqlSession): Promise<boolean> {
  const { rows } = await client.query<{ n: number }>(HYPERTABLES, [TABLES.map((one) => one.table)]);
  return (rows[0]?.n ?? 0) > 0;
}

async function convert(client: SqlSession, { schema }: Extension, table: TimeTable): Promise<void> {
  const old = quoteIdentifier(table.table);
  const made = quoteIdentifier(`${table.table}_hypertable`);
  const constraints = await client.query<{ name: string; definition: string }>(CONSTRAINTS, [old]);
  const indexes = await client.query<{ definition: string }>(INDEXES, [old]);
  const grants = await client.query<{ privilege: string; grantee: string }>(GRANTS, [old]);
  const fillfactor = FILLFACTOR[table.table];
  const storage = fillfactor === undefined ? '' : ` WITH (fillfactor = ${fillfactor})`;
  await client.query(`CREATE TABLE ${made} (LIKE ${old} INCLUDING ALL EXCLUDING INDEXES)${storage}`);
  await client.query(`DROP TABLE ${old}`);
  await client.query(`ALTER TABLE ${made} RENAME TO ${old}`);
  for (const { name, definition } of constraints.rows)
    await client.query(`ALTER TABLE ${old} ADD CONSTRAINT ${quoteIdentifier(name)} ${definition}`);
  for (const { definition } of indexes.rows) await client.query(definition.replace(' ON ONLY ', ' ON '));
  for (const { privilege, grantee } of grants.rows) await client.query(`GRANT ${privilege} ON ${old} TO ${grantee}`);
  await client.query(
    `SELECT ${quoteIdentifier(schema)}.create_hypertable($1::regclass, $2::name, chunk_time_interval => $3::bigint,
       associated_schema_name => current_schema(), create_default_indexes => false)`,
    [table.table, table.column, table.chunkMs * 1000],
  );
}
