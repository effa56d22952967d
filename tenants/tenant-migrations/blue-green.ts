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
import { listTables, loadTables, readSequences, setSequences, within } from './table-data.ts';

/** Where the new schema is built, and where the old one is kept. */
export const nextSchemaOf = (tenantId: string): string => `${schemaOf(tenantId)}_next`;
export const oldSchemaOf = (tenantId: string): string => `${schemaOf(tenantId)}_old`;

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
  await switchToNext(client, tenantId);
  return applied;
}

/** Puts the schema beside in the place of the tenant's own, which is kept, in the caller's transaction. */
export async function switchToNext(client: ClientBase, tenantId: string): Promise<void> {
  // One kept schema is enough: the one of an earlier change goes.
  await dropBeside(client, oldSchemaOf(tenantId));
  await rename(client, schemaOf(tenantId), oldSchemaOf(tenantId));
  await rename(client, nextSchemaOf(tenantId), schemaOf(tenantId));
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

/** Rows, sequences and materialized views, as the owner. */
async function copyData(client: ClientBase, tenantId: string): Promise<void> {
  const from = schemaOf(tenantId);
  const to = nextSchemaOf(tenantId);
  const tables = await listTables(client, from);
  await client.query(
    `SET LOCAL ROLE ${quoteIdentifier(ownerRoleOf(tenantId))}; SET LOCAL search_path = ${quoteIdentifier(to)}`,
  );
  if (tables.length > 0)
    await client.query(`LOCK TABLE ${tables.map((one) => within(from, one.name)).join(', ')} IN SHARE MODE`);
  await loadTables(client, to, tables, async ({ name, columns }) => {
    const insert = `INSERT INTO ${within(to, name)} (${columns}) OVERRIDING SYSTEM VALUE`;
    await client.query(`${insert} SELECT ${columns} FROM ${within(from, name)}`);
  });
  await setSequences(client, to, await readSequences(client, from));
  await client.query('RESET ROLE; SET LOCAL search_path = tidemark');
}
