import type { ClientBase } from 'pg';
import { quoteIdentifier } from '../../sinks/index.ts';
import { readTenantMigrations, type TenantMigration } from './read.ts';

/**
 * Brings one tenant's schema to the newest version, in the caller's transaction: each missing file runs as the schema's
 * owner, with that schema alone as search_path.
 * @returns versions applied now
 */
export async function applyTenantMigrations(
  client: ClientBase,
  schema: string,
  migrations: readonly TenantMigration[] = readTenantMigrations(),
): Promise<number[]> {
  const { rows } = await client.query<{ owner: string; applied: number[] }>(
    `SELECT pg_get_userbyid(nspowner) AS owner,
       ARRAY(SELECT version FROM tidemark.tenant_migrations AS m WHERE m.schema = nspname) AS applied
     FROM pg_namespace WHERE nspname = $1`,
    [schema],
  );
  const found = rows[0];
  if (found === undefined) throw new Error(`there is no schema ${schema}`);
  const missing = migrations.filter((one) => !found.applied.includes(one.version));
  for (const { version, name, up, sha256 } of missing) {
    await client.query(
      `SET LOCAL ROLE ${quoteIdentifier(found.owner)}; SET LOCAL search_path = ${quoteIdentifier(schema)}`,
    );
    await client.query(up);
    await client.query('RESET ROLE; SET LOCAL search_path = tidemark');
    await client.query('INSERT INTO tenant_migrations (schema, version, name, sha256) VALUES ($1, $2, $3, $4)', [
      schema,
      version,
      name,
      sha256,
    ]);
  }
  return missing.map((one) => one.version);
}
