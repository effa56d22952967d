import type { Pool } from 'pg';
import type { Finding } from './anomalies.ts';

/** The newest look at a tenant's schema. */
export interface SchemaHealth {
  tenantId: string;
  customerId: string;
  at: Date;
  bytes: number;
  /** bytes more than a day ago, or than at the first look */
  growth: number;
  tables: number;
  slowQueries: number;
  /** calls and failed calls of the hour before */
  events: number;
  errors: number;
  version: number | null;
  /** lines of structure that differ */
  drift: number;
  findings: Finding[];
}

const LIST = `
  SELECT h.tenant_id AS "tenantId", t.customer_id AS "customerId", h.at, h.bytes::float8 AS bytes, (h.bytes - day.bytes)::float8 AS growth,
    h.tables, h.slow_queries AS "slowQueries", h.events::float8 AS events, h.errors::float8 AS errors, h.version::float8 AS version, h.drift, h.findings
  FROM tenants AS t
  JOIN LATERAL (SELECT * FROM schema_health WHERE tenant_id = t.id ORDER BY at DESC LIMIT 1) AS h ON true
  JOIN LATERAL (SELECT bytes FROM schema_health WHERE tenant_id = t.id AND at >= h.at - interval '1 day' ORDER BY at LIMIT 1) AS day ON true
  WHERE t.id > $1 AND ($2::uuid[] IS NULL OR t.id = ANY ($2)) AND ($3::text IS NULL OR h.findings @> jsonb_build_array(jsonb_build_object('kind', $3)))
  ORDER BY t.id LIMIT $4`;

/** Newest looks, by tenant id after `after`. @param finding only schemas that have it */
export async function listSchemaHealth(
  pool: Pool,
  filter: { after: string; tenants: readonly string[] | null; finding: string | null; limit: number },
): Promise<SchemaHealth[]> {
  const { rows } = await pool.query<SchemaHealth>(LIST, [filter.after, filter.tenants, filter.finding, filter.limit]);
  return rows;
}
