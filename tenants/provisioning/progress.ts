import type { Pool } from 'pg';

export type StepStatus = 'waiting' | 'running' | 'done' | 'skipped' | 'failed' | 'undone';
export type RunStatus = 'running' | 'undoing' | 'ready' | 'failed';

/** What a stream of progress says. */
export type ProvisioningEvent =
  | { type: 'step'; step: string; status: StepStatus; attempt: number; error: string | null }
  | { type: 'run'; status: RunStatus; error: string | null };

export interface NumberedEvent {
  seq: number;
  /** ISO 8601 */
  at: string;
  event: ProvisioningEvent;
}

/** A run as callers see it. */
export interface ProvisioningState {
  id: string;
  tenant_id: string;
  slug: string;
  status: RunStatus;
  error: string | null;
  created_at: string;
  ended_at: string | null;
  steps: {
    step: string;
    status: StepStatus;
    attempt: number;
    started_at: string | null;
    ended_at: string | null;
    error: string | null;
  }[];
}

const BY_REFERENCE = `
  SELECT id FROM provisionings WHERE tenant_id::text = $1 OR id::text = $1 OR slug = $1 OR request ->> 'customerId' = $1
  ORDER BY created_at DESC LIMIT 1`;
const STATE = `
  SELECT p.id, p.tenant_id, p.slug, p.status, p.error, p.created_at, p.ended_at, (
    SELECT json_agg(json_build_object('step', s.step, 'status', s.status, 'attempt', s.attempt, 'started_at', s.started_at,
      'ended_at', s.ended_at, 'error', s.error) ORDER BY s.position)
    FROM provisioning_steps AS s WHERE s.provisioning_id = p.id) AS steps
  FROM provisionings AS p WHERE p.id = $1`;
const EVENTS =
  'SELECT seq, at, event FROM provisioning_events WHERE provisioning_id = $1 AND seq > $2 ORDER BY seq LIMIT 1000';

/** The latest run of a tenant, by any of its names; also of one that was undone. */
export async function findProvisioning(pool: Pool, reference: string): Promise<ProvisioningState | undefined> {
  if (reference.includes('\0')) return undefined;
  const { rows } = await pool.query<{ id: string }>(BY_REFERENCE, [reference]);
  return rows[0] === undefined ? undefined : provisioningState(pool, rows[0].id);
}

export async function provisioningState(pool: Pool, id: string): Promise<ProvisioningState | undefined> {
  type Row = Omit<ProvisioningState, 'created_at' | 'ended_at'> & { created_at: Date; ended_at: Date | null };
  const { rows } = await pool.query<Row>(STATE, [id]);
  const row = rows[0];
  if (row === undefined) return undefined;
  return { ...row, created_at: row.created_at.toISOString(), ended_at: row.ended_at?.toISOString() ?? null };
}

/** Events after number `after`, at most 1000. */
export async function provisioningEvents(pool: Pool, id: string, after: number): Promise<NumberedEvent[]> {
  const { rows } = await pool.query<{ seq: number; at: Date; event: ProvisioningEvent }>(EVENTS, [id, after]);
  return rows.map((row) => ({ ...row, at: row.at.toISOString() }));
}
