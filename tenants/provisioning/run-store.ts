import type { ClientBase, Pool } from 'pg';
import { withTransaction } from '../../sinks/index.ts';
import type { ProvisioningEvent, StepStatus } from './progress.ts';
import type { ProvisioningRequest } from './request.ts';

/** A process that has not renewed its lease for so long has ended. */
export const LEASE_SECONDS = 8;

export interface TakenRun {
  id: string;
  tenantId: string;
  status: 'running' | 'undoing';
  request: ProvisioningRequest;
  error: string | null;
  steps: { step: string; status: StepStatus; attempt: number }[];
}

/** Another process has taken the run over. */
export class LeaseLost extends Error {
  override name = 'LeaseLost';
}

const TAKE = `
  UPDATE provisionings SET lease_owner = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
  WHERE id = $1 AND status IN ('running', 'undoing') AND (lease_owner = $2 OR lease_until IS NULL OR lease_until < clock_timestamp())
  RETURNING id, tenant_id, status, request, error`;
const STEPS = 'SELECT step, status, attempt FROM provisioning_steps WHERE provisioning_id = $1 ORDER BY position';
const RENEW = `
  UPDATE provisionings SET lease_until = clock_timestamp() + make_interval(secs => $3)
  WHERE id = $1 AND lease_owner = $2 AND status IN ('running', 'undoing')`;
const RELEASE = 'UPDATE provisionings SET lease_owner = NULL, lease_until = NULL WHERE id = $1 AND lease_owner = $2';
const LOST = `
  SELECT id FROM provisionings
  WHERE status IN ('running', 'undoing') AND (lease_until IS NULL OR lease_until < clock_timestamp())
  ORDER BY created_at LIMIT $1`;
const ADD_EVENTS = `
  WITH added AS (UPDATE provisionings SET seq = seq + $3::int WHERE id = $1 RETURNING seq)
  INSERT INTO provisioning_events (provisioning_id, seq, event)
  SELECT $1, added.seq - $3::int + e.n, e.event FROM added, jsonb_array_elements($2::jsonb) WITH ORDINALITY AS e(event, n)`;
const START = `
  UPDATE provisioning_steps SET status = 'running', attempt = attempt + 1, error = NULL, ended_at = NULL,
    started_at = coalesce(started_at, clock_timestamp())
  WHERE provisioning_id = $1 AND step = $2 RETURNING attempt`;
const END = `
  UPDATE provisioning_steps SET status = $3, error = $4, ended_at = clock_timestamp(), started_at = coalesce(started_at, clock_timestamp())
  WHERE provisioning_id = $1 AND step = $2 RETURNING attempt`;
const SET_STATUS = `
  UPDATE provisionings SET status = $2, error = $3, ended_at = CASE WHEN $2 IN ('ready', 'failed') THEN clock_timestamp() END,
    idempotency_key = CASE WHEN $2 = 'failed' THEN NULL ELSE idempotency_key END,
    lease_owner = CASE WHEN $2 IN ('ready', 'failed') THEN NULL ELSE lease_owner END,
    lease_until = CASE WHEN $2 IN ('ready', 'failed') THEN NULL ELSE lease_until END
  WHERE id = $1`;

/** @returns undefined when another process has it, or it has ended */
export async function takeRun(pool: Pool, id: string, owner: string): Promise<TakenRun | undefined> {
  const { rows } = await pool.query<{
    id: string;
    tenant_id: string;
    status: 'running' | 'undoing';
    request: ProvisioningRequest;
    error: string | null;
  }>(TAKE, [id, owner, LEASE_SECONDS]);
  const row = rows[0];
  if (row === undefined) return undefined;
  const { rows: steps } = await pool.query<TakenRun['steps'][number]>(STEPS, [id]);
  return { id, tenantId: row.tenant_id, status: row.status, request: row.request, error: row.error, steps };
}

/** Runs that no living process has. */
export async function lostRuns(pool: Pool, most: number): Promise<string[]> {
  const { rows } = await pool.query<{ id: string }>(LOST, [most]);
  return rows.map((row) => row.id);
}

/** @throws {LeaseLost} */
export async function renewLease(client: Pick<ClientBase, 'query'>, id: string, owner: string): Promise<void> {
  const { rowCount } = await client.query(RENEW, [id, owner, LEASE_SECONDS]);
  if (rowCount !== 1) throw new LeaseLost(`provisioning ${id} has another owner`);
}

/** Lets another process take the run at once. */
export async function releaseRun(pool: Pool, id: string, owner: string): Promise<void> {
  await pool.query(RELEASE, [id, owner]);
}

/** Ends every lease: for a process that is alone on the database, so that it need not wait for those of its predecessor. */
export async function releaseAll(pool: Pool): Promise<void> {
  await pool.query('UPDATE provisionings SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL');
}

/** One transaction of a run's owner: whatever it does is undone when the lease is another's. @throws {LeaseLost} */
export function asOwner<T>(pool: Pool, id: string, owner: string, work: (run: RunWriter) => Promise<T>): Promise<T> {
  return withTransaction(pool, async (client) => {
    await renewLease(client, id, owner);
    const writer = new RunWriter(client, id);
    const result = await work(writer);
    await writer.flush();
    return result;
  });
}

/** Records what happens to a run, in its owner's transaction. */
export class RunWriter {
  readonly client: ClientBase;
  readonly #id: string;
  readonly #events: ProvisioningEvent[] = [];

  constructor(client: ClientBase, id: string) {
    this.client = client;
    this.#id = id;
  }

  async start(step: string): Promise<void> {
    const { rows } = await this.client.query<{ attempt: number }>(START, [this.#id, step]);
    this.#events.push({ type: 'step', step, status: 'running', attempt: rows[0]?.attempt ?? 1, error: null });
  }

  async end(step: string, status: StepStatus, error: string | null = null): Promise<void> {
    const { rows } = await this.client.query<{ attempt: number }>(END, [this.#id, step, status, error]);
    this.#events.push({ type: 'step', step, status, attempt: rows[0]?.attempt ?? 0, error });
  }

  async setStatus(status: 'undoing' | 'ready' | 'failed', error: string | null): Promise<void> {
    await this.client.query(SET_STATUS, [this.#id, status, error]);
    this.#events.push({ type: 'run', status, error });
  }

  async flush(): Promise<void> {
    if (this.#events.length > 0)
      await this.client.query(ADD_EVENTS, [this.#id, JSON.stringify(this.#events), this.#events.length]);
  }
}
