/** Subjects in OpenMeter's sense: a subject is a tenant, with what its clients keep of it. */
import type { Pool } from 'pg';

export interface SubjectChange {
  key: string;
  displayName?: string | null | undefined;
  metadata?: Record<string, unknown> | null | undefined;
  stripeCustomerId?: string | null | undefined;
  currentPeriodStart?: string | undefined;
  currentPeriodEnd?: string | undefined;
}

interface SubjectRow {
  id: string;
  customer_id: string;
  name: string;
  metadata: Record<string, unknown> | null;
  stripe_customer_id: string | null;
  current_period_start: Date | null;
  current_period_end: Date | null;
  created_at: Date;
  updated_at: Date | null;
}

const SELECT = `
  SELECT t.id, t.customer_id, t.name, s.metadata, s.stripe_customer_id, s.current_period_start, s.current_period_end, t.created_at, s.updated_at
  FROM tenants AS t LEFT JOIN subjects AS s ON s.tenant_id = t.id
  WHERE t.status <> 'deleted' AND s.deleted_at IS NULL`;

/** An unknown key becomes a metering-only tenant, as its first event would make it; what is not given stays as it is. */
const UPSERT = `
  WITH given AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS g(
      key text, "displayName" text, metadata jsonb, "stripeCustomerId" text, "currentPeriodStart" timestamptz, "currentPeriodEnd" timestamptz, "given" text[])
  ), tenant AS (
    INSERT INTO tenants (customer_id, name, tier, status)
    SELECT key, coalesce("displayName", key), 'discovered', 'discovered' FROM given ORDER BY key
    ON CONFLICT (customer_id) DO UPDATE SET name = CASE WHEN (SELECT 'displayName' = ANY (g."given") FROM given AS g WHERE g.key = excluded.customer_id)
      THEN excluded.name ELSE tenants.name END
    RETURNING id, customer_id
  )
  INSERT INTO subjects AS s (tenant_id, metadata, stripe_customer_id, current_period_start, current_period_end)
  SELECT t.id, g.metadata, g."stripeCustomerId", g."currentPeriodStart", g."currentPeriodEnd" FROM given AS g JOIN tenant AS t ON t.customer_id = g.key
  ON CONFLICT (tenant_id) DO UPDATE SET
    metadata = coalesce(excluded.metadata, s.metadata), stripe_customer_id = coalesce(excluded.stripe_customer_id, s.stripe_customer_id),
    current_period_start = coalesce(excluded.current_period_start, s.current_period_start),
    current_period_end = coalesce(excluded.current_period_end, s.current_period_end), updated_at = now(), deleted_at = NULL`;

const DELETE = `
  INSERT INTO subjects (tenant_id, deleted_at) VALUES ($1, now())
  ON CONFLICT (tenant_id) DO UPDATE SET deleted_at = now(), updated_at = now() WHERE subjects.deleted_at IS NULL`;

/** Subjects by key, after `after`. @param tenantId only this one */
export async function listSubjects(pool: Pool, after: string, limit: number, tenantId: string | null) {
  const { rows } = await pool.query<SubjectRow>(
    `${SELECT} AND t.customer_id > $1 AND ($3::uuid IS NULL OR t.id = $3) ORDER BY t.customer_id LIMIT $2`,
    [after, limit, tenantId],
  );
  return rows.map(present);
}

/** @returns undefined when it was deleted */
export async function findSubject(pool: Pool, tenantId: string) {
  const { rows } = await pool.query<SubjectRow>(`${SELECT} AND t.id = $1`, [tenantId]);
  return rows[0] === undefined ? undefined : present(rows[0]);
}

/** Creates or changes subjects; each key once. @returns them in the order given */
export async function upsertSubjects(pool: Pool, changes: readonly SubjectChange[]) {
  const given = changes.map((change) => ({ ...change, given: Object.keys(change) }));
  await pool.query(UPSERT, [JSON.stringify(given)]);
  const { rows } = await pool.query<SubjectRow>(`${SELECT} AND t.customer_id = ANY ($1)`, [
    changes.map((change) => change.key),
  ]);
  return changes.flatMap(({ key }) => rows.filter((row) => row.customer_id === key).map(present));
}

export async function deleteSubject(pool: Pool, tenantId: string): Promise<void> {
  await pool.query(DELETE, [tenantId]);
}

function present(row: SubjectRow) {
  return {
    id: row.id,
    key: row.customer_id,
    displayName: row.name,
    metadata: row.metadata,
    stripeCustomerId: row.stripe_customer_id,
    ...(row.current_period_start === null ? {} : { currentPeriodStart: row.current_period_start.toISOString() }),
    ...(row.current_period_end === null ? {} : { currentPeriodEnd: row.current_period_end.toISOString() }),
    createdAt: row.created_at.toISOString(),
    updatedAt: (row.updated_at ?? row.created_at).toISOString(),
  };
}
