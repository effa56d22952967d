import type { Pool } from 'pg';
import type { Tenant } from '../../schemas/index.ts';
import { TENANT_COLUMNS, type TenantRow, toTenant } from '../../sinks/index.ts';

/** A tenant that nobody has sent anything for, and what its schema takes in the database. */
export interface InactiveTenant {
  tenant: Tenant;
  lastEvent: Date | null;
  schemaBytes: number;
}

const LIST = `
  SELECT ${TENANT_COLUMNS.split(', ')
    .map((column) => `t.${column}`)
    .join(', ')}, a.changed_at AS last_event, size.bytes
  FROM tenants AS t JOIN tenant_schemas AS s ON s.tenant_id = t.id LEFT JOIN schema_activity AS a ON a.tenant_id = t.id
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 AS bytes FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace(s.schema) AND c.relkind IN ('r', 'm', 'S')) AS size
  WHERE t.status IN ('ready', 'suspended') AND t.shard = 'main' AND coalesce(a.changed_at, t.created_at) < now() - make_interval(days => $1)
  ORDER BY size.bytes DESC, t.id LIMIT $2`;

/** Whom archiving would free the most, first. Activity is looked at every five minutes (job `schema_health`). */
export async function listInactive(pool: Pool, days: number, limit: number): Promise<InactiveTenant[]> {
  const { rows } = await pool.query<TenantRow & { last_event: Date | null; bytes: number }>(LIST, [days, limit]);
  return rows.map((row) => ({ tenant: toTenant(row), lastEvent: row.last_event, schemaBytes: row.bytes }));
}
