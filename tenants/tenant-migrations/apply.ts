import { randomBytes } from 'node:crypto';
import type { ClientBase } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { quoteIdentifier } from '../../sinks/index.ts';
import { readTenantMigrations, type TenantMigration } from './read.ts';

/**
 * Brings one tenant's schema to the newest of `migrations`, in the caller's transaction: each missing one runs as the
 * schema's owner, with that schema alone as search_path.
 * @returns versions applied now
 * @throws TidemarkError `migration_changed` | `migration_missing` | `migration_order`; DatabaseError what PostgreSQL refused
 */
export async function applyTenantMigrations(
  client: ClientBase,
  schema: string,
  migrations: readonly TenantMigration[] = readTenantMigrations(),
): Promise<number[]> {
  const owner = await ownerOf(client, schema);
  const missing = missingOf(migrations, await appliedVersions(client, schema), schema);
  for (const { version, name, up, sha256 } of missing) {
    await runAs(client, owner, schema, up);
    await client.query(
      'INSERT INTO tidemark.tenant_migrations (schema, version, name, sha256) VALUES ($1, $2, $3, $4)',
      [schema, version, name, sha256],
    );
  }
  return missing.map((one) => one.version);
}

/**
 * Undoes those of `versions` that are applied, newest first, in the caller's transaction.
 * @throws TidemarkError `migration_irreversible` when one has no way back
 */
export async function undoTenantMigrations(
  client: ClientBase,
  schema: string,
  migrations: readonly TenantMigration[],
  versions: readonly number[],
): Promise<number[]> {
  const owner = await ownerOf(client, schema);
  const applied = await appliedVersions(client, schema);
  const undone = migrations
    .filter((one) => versions.includes(one.version) && applied.some((row) => row.version === one.version))
    .toReversed();
  for (const { version, name, down } of undone) {
    if (down === null) throw new TidemarkError('migration_irreversible', `${version}_${name} has no way back`);
    await runAs(client, owner, schema, down);
    await client.query('DELETE FROM tidemark.tenant_migrations WHERE schema = $1 AND version = $2', [schema, version]);
  }
  return undone.map((one) => one.version);
}

export interface AppliedVersion {
  version: number;
  name: string;
  sha256: string;
}

/** What is applied in a schema, ascending. */
export async function appliedVersions(client: Pick<ClientBase, 'query'>, schema: string): Promise<AppliedVersion[]> {
  const { rows } = await client.query<AppliedVersion>(
    'SELECT version::float8 AS version, name, sha256 FROM tidemark.tenant_migrations WHERE schema = $1 ORDER BY version',
    [schema],
  );
  return rows;
}

/** The migrations that a schema lacks: what it has must be the beginning of the list, unchanged. */
export function missingOf(
  migrations: readonly TenantMigration[],
  applied: readonly AppliedVersion[],
  schema: string,
): TenantMigration[] {
  for (const [i, row] of applied.entries()) {
    const ours = migrations.find((one) => one.version === row.version);
    const title = `${row.version}_${row.name}`;
    if (ours === undefined) throw new TidemarkError('migration_missing', `${schema} has ${title}, which is not here`);
    if (ours.sha256 !== row.sha256)
      throw new TidemarkError('migration_changed', `${title} was changed after ${schema} got it`);
    if (migrations[i]?.version !== row.version)
      throw new TidemarkError(
        'migration_order',
        `${schema} has ${title} but lacks ${migrations[i]?.version}, which comes before`,
      );
  }
  return migrations.slice(applied.length);
}

/**
 * Runs a file as the schema's owner. It goes through EXECUTE, which refuses COMMIT and the like (manual, 41.5.4): a file
 * can't end the transaction that it is undone with, and statement_timeout covers it as a whole.
 */
async function runAs(client: ClientBase, owner: string, schema: string, sql: string): Promise<void> {
  await client.query(`SET LOCAL ROLE ${quoteIdentifier(owner)}; SET LOCAL search_path = ${quoteIdentifier(schema)}`);
  const quote = `$f${randomBytes(8).toString('hex')}$`;
  const block = `$b${randomBytes(8).toString('hex')}$`;
  await client.query(`DO ${block} BEGIN EXECUTE ${quote}\n${sql}\n${quote}; END ${block}`);
  await client.query('RESET ROLE; SET LOCAL search_path = tidemark');
}

async function ownerOf(client: ClientBase, schema: string): Promise<string> {
  const { rows } = await client.query<{ owner: string }>(
    'SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = $1',
    [schema],
  );
  if (rows[0] === undefined) throw new TidemarkError('not_found', `there is no schema ${schema}`);
  return rows[0].owner;
}
