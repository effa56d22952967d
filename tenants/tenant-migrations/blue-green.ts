/**
 * Blue/green for one tenant: the new schema is built beside the old, the data copied, both switched by rename, and the old
 * one kept, so that going back is a rename too. Readers go on throughout; writers wait while the data is copied.
 */
import type { ClientBase } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { quoteIdentifier } from '../../sinks/index.ts';
import { ownerRoleOf, schemaOf } from '../schema/names.ts';
import { createSchemaBeside } from '../schema/tenant-schema.ts';
import { applyTenantMigrations } from './apply.ts';
import type { TenantMigration } from './read.ts';

/** Where the new schema is built, and where the old one is kept. */
export const nextSchemaOf = (tenantId: string): string => `${schemaOf(tenantId)}_next`;
export const oldSchemaOf = (tenantId: string): string => `${schemaOf(tenantId)}_old`;

const TABLES = `
  SELECT c.relname AS name, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') AS columns
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
  WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
  GROUP BY c.relname ORDER BY c.relname`;
const FOREIGN_KEYS = `
  SELECT c.relname AS table, k.conname AS name, pg_get_constraintdef(k.oid) AS definition FROM pg_constraint AS k
  JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND k.contype = 'f' AND k.conparentid = 0`;
const SEQUENCES = `
  SELECT c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'S'`;
const MATERIALIZED = `
  SELECT c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'm'`;

/** Whether a schema is there. */
export async function schemaExists(client: Pick<ClientBase, 'query'>, schema: string): Promise<boolean> {
  const { rowCount } = await client.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema]);
  return rowCount === 1;
}

/** Builds an empty schema beside the tenant's, at the same version. In the caller's transaction; starts over what an earlier try left. */
export async function buildNext(
  client: ClientBase,
  tenantId: string,
  applied: readonly TenantMigration[],
): Promise<void> {
  const next = nextSchemaOf(tenantId);
  await dropBeside(client, next);
  await createSchemaBeside(client, tenantId, next);
  await applyTenantMigrations(client, next, applied);
}

/**
 * Copies the data, migrates the copy, and switches, in the caller's transaction.
 * @returns what `migrate` applied
 */
export async function copyAndSwitch(
  client: ClientBase,
  tenantId: string,
  migrations: readonly TenantMigration[],
): Promise<number[]> {
  await copyData(client, tenantId);
  const applied = await applyTenantMigrations(client, nextSchemaOf(tenantId), migrations);
  // One kept schema is enough: the one of an earlier change goes.
  await dropBeside(client, oldSchemaOf(tenantId));
  await rename(client, schemaOf(tenantId), oldSchemaOf(tenantId));
  await rename(client, nextSchemaOf(tenantId), schemaOf(tenantId));
  return applied;
}

/** Puts the kept schema back in its place, in the caller's transaction; what was written since the switch goes with the new one. */
export async function switchBack(client: ClientBase, tenantId: string): Promise<void> {
  const [schema, next, old] = [schemaOf(tenantId), nextSchemaOf(tenantId), oldSchemaOf(tenantId)];
  if (!(await schemaExists(client, old)))
    throw new TidemarkError(
      'migration_irreversible',
      `the schema before the change of tenant ${tenantId} was not kept`,
    );
  await dropBeside(client, next);
  await rename(client, schema, next);
  await rename(client, old, schema);
  await dropBeside(client, next);
}

/** Drops a schema that is beside a tenant's own. Idempotent. */
export async function dropBeside(client: ClientBase, schema: string): Promise<void> {
  if (!/_(next|old)$/.test(schema)) throw new RangeError("a tenant's own schema is not dropped here");
  await client.query(`DROP SCHEMA IF EXISTS ${quoteIdentifier(schema)} CASCADE`);
  await client.query('DELETE FROM tidemark.tenant_migrations WHERE schema = $1', [schema]);
}

async function rename(client: ClientBase, from: string, to: string): Promise<void> {
  await client.query(`ALTER SCHEMA ${quoteIdentifier(from)} RENAME TO ${quoteIdentifier(to)}`);
  await client.query('UPDATE tidemark.tenant_migrations SET schema = $2 WHERE schema = $1', [from, to]);
}

/** Rows, sequences and materialized views, as the owner: without foreign keys and triggers, which would see half of it. */
async function copyData(client: ClientBase, tenantId: string): Promise<void> {
  const from = schemaOf(tenantId);
  const to = nextSchemaOf(tenantId);
  const { rows: tables } = await client.query<{ name: string; columns: string | null }>(TABLES, [from]);
  const inFrom = (name: string) => `${quoteIdentifier(from)}.${quoteIdentifier(name)}`;
  const inTo = (name: string) => `${quoteIdentifier(to)}.${quoteIdentifier(name)}`;
  await client.query(
    `SET LOCAL ROLE ${quoteIdentifier(ownerRoleOf(tenantId))}; SET LOCAL search_path = ${quoteIdentifier(to)}`,
  );
  if (tables.length > 0)
    await client.query(`LOCK TABLE ${tables.map((one) => inFrom(one.name)).join(', ')} IN SHARE MODE`);
  const { rows: keys } = await client.query<{ table: string; name: string; definition: string }>(FOREIGN_KEYS, [to]);
  for (const key of keys)
    await client.query(`ALTER TABLE ${inTo(key.table)} DROP CONSTRAINT ${quoteIdentifier(key.name)}`);
  for (const { name, columns } of tables) {
    if (columns === null) continue;
    await client.query(`
      ALTER TABLE ${inTo(name)} DISABLE TRIGGER USER;
      INSERT INTO ${inTo(name)} (${columns}) OVERRIDING SYSTEM VALUE SELECT ${columns} FROM ${inFrom(name)};
      ALTER TABLE ${inTo(name)} ENABLE TRIGGER USER`);
  }
  for (const key of keys)
    await client.query(`ALTER TABLE ${inTo(key.table)} ADD CONSTRAINT ${quoteIdentifier(key.name)} ${key.definition}`);
  for (const { name } of (await client.query<{ name: string }>(SEQUENCES, [from])).rows)
    await client.query(`SELECT setval($1::regclass, last_value, is_called) FROM ${inFrom(name)}`, [inTo(name)]);
  for (const { name } of (await client.query<{ name: string }>(MATERIALIZED, [to])).rows)
    await client.query(`REFRESH MATERIALIZED VIEW ${inTo(name)}`);
  await client.query('RESET ROLE; SET LOCAL search_path = tidemark');
}
