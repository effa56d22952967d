import { quoteIdentifier } from '../../sinks/index.ts';
import type { TenantConnection } from '../pools/index.ts';

/** Relations of the schema that belong to its structure; not the views over shared tables, which may be large. */
const RELATIONS = `
  SELECT c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relowner = n.nspowner AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition ORDER BY 1`;

/**
 * Whether a tenant's service would find its schema working: connects in the tenant's own role and reads a row of every
 * relation.
 * @throws DatabaseError of what does not answer
 */
export async function sampleSchema(connection: TenantConnection, schema: string): Promise<void> {
  const { rows } = await connection.query<{ name: string }>(RELATIONS, [schema]);
  for (const { name } of rows)
    await connection.query(`SELECT * FROM ${quoteIdentifier(schema)}.${quoteIdentifier(name)} LIMIT 1`);
}
