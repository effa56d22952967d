import { Readable } from 'node:stream';
import type { Pool } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { quoteIdentifier } from '../../sinks/index.ts';
import { AS_LINES } from '../backup/sources.ts';
import { schemaOf } from '../schema/names.ts';
import { SHARED_VIEWS } from '../schema/shared-views.ts';
import { requireSchemaHere } from './state.ts';

const OWN_TABLES = `
  SELECT relname AS name FROM pg_class
  WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1`;
const CONFIGURATION = `
  SELECT json_build_object('id', t.id, 'slug', t.slug, 'customer_id', t.customer_id, 'name', t.name, 'email', t.email,
    'tier', t.tier, 'status', t.status, 'created_at', t.created_at, 'limits', s.limits, 'features', s.features)::text AS line
  FROM tenants AS t LEFT JOIN tenant_settings AS s ON s.tenant_id = t.id WHERE t.id = $1`;

/**
 * Everything of a tenant as NDJSON, one snapshot: a line `{"tenant": {…}}`, then `{"table": name, "row": {…}}` for its own
 * tables and its usage. Memory does not grow with its size.
 */
export function exportTenant(pool: Pool, tenantId: string): Readable {
  return Readable.from(linesOf(pool, tenantId));
}

async function* linesOf(pool: Pool, tenantId: string): AsyncGenerator<Buffer> {
  const client = await pool.connect();
  let broken = true;
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await requireSchemaHere(client, tenantId);
    const { rows } = await client.query<{ line: string }>(CONFIGURATION, [tenantId]);
    yield Buffer.from(`{"tenant":${rows[0]?.line ?? 'null'}}\n`);
    const schema = schemaOf(tenantId);
    const { rows: own } = await client.query<{ name: string }>(OWN_TABLES, [schema]);
    const sources = [
      ...own.map(({ name }) => ({ name, from: `${quoteIdentifier(schema)}.${quoteIdentifier(name)}` })),
      ...SHARED_VIEWS.map(({ name, table, columns }) => ({
        name,
        from: `(SELECT ${columns.map(quoteIdentifier).join(', ')} FROM tidemark.${quoteIdentifier(table)} WHERE tenant_id = '${tenantId}'::uuid)`,
      })),
    ];
    for (const { name, from } of sources) {
      const label = JSON.stringify(name).replaceAll("'", "''");
      const stream = client.query(
        copyTo(
          `COPY (SELECT '{"table":${label},"row":' || row_to_json(t)::text || '}' FROM ${from} AS t) TO STDOUT ${AS_LINES}`,
        ),
      );
      for await (const chunk of stream) yield chunk;
    }
    await client.query('COMMIT');
    broken = false;
  } finally {
    client.release(broken);
  }
}
