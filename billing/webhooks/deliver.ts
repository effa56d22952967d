import type { Job } from '../../schemas/index.ts';
import { sendWebhook } from '../../sinks/index.ts';
import type { Queryable } from '../usage/ports.ts';

/** Seconds to the next attempt after each that failed: the schedule that Standard Webhooks recommends. */
export const RETRY_AFTER_SECONDS = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
/** A delivery that a crash interrupted is tried again after this. */
const LEASE_SECONDS = 120;
const AT_ONCE = 8;

/** One delivery, as the log of deliveries shows it. */
export interface Delivery {
  id: number;
  endpoint: string;
  url: string;
  message_id: string;
  event: string;
  status: 'pending' | 'delivered' | 'failed';
  attempts: number;
  next_attempt_at: Date;
  last_status: number | null;
  last_error: string | null;
  created_at: Date;
  delivered_at: Date | null;
}

const TAKE = `
  UPDATE webhook_deliveries AS d SET attempts = d.attempts + 1, next_attempt_at = $1::timestamptz + make_interval(secs => $3)
  FROM (
    SELECT id FROM webhook_deliveries WHERE status = 'pending' AND next_attempt_at <= $1 ORDER BY next_attempt_at, id LIMIT $2
    FOR UPDATE SKIP LOCKED
  ) AS due, webhook_endpoints AS e
  WHERE d.id = due.id AND e.id = d.endpoint_id
  RETURNING d.id::float8 AS id, d.message_id, d.body, d.attempts, e.url, e.secret`;
const SETTLE = `
  UPDATE webhook_deliveries SET status = $2, last_status = $3, last_error = $4, next_attempt_at = coalesce($5, next_attempt_at),
    delivered_at = CASE WHEN $2 = 'delivered' THEN $6::timestamptz END
  WHERE id = $1`;

interface Due {
  id: number;
  message_id: string;
  body: string;
  attempts: number;
  url: string;
  secret: string;
}

/** Sends what is due, some at once, until nothing is. At least once: receivers tell repeats by the message's id. */
export async function deliverDue(
  database: Queryable,
  now: () => number,
  signal?: AbortSignal,
): Promise<{ delivered: number; failed: number }> {
  const result = { delivered: 0, failed: 0 };
  for (;;) {
    signal?.throwIfAborted();
    const at = new Date(now()).toISOString();
    const { rows } = await database.query<Due>(TAKE, [at, AT_ONCE, LEASE_SECONDS]);
    if (rows.length === 0) return result;
    for (const delivered of await Promise.all(rows.map((due) => attempt(database, due, now))))
      result[delivered ? 'delivered' : 'failed']++;
  }
}

async function attempt(database: Queryable, due: Due, now: () => number): Promise<boolean> {
  const outcome = await sendWebhook({ ...due, id: due.message_id }, { nowMs: now() });
  const wait = RETRY_AFTER_SECONDS[due.attempts - 1];
  const ended = outcome.delivered ? 'delivered' : wait === undefined || outcome.status === 410 ? 'failed' : 'pending';
  await database.query(SETTLE, [
    due.id,
    ended,
    outcome.status,
    outcome.error?.slice(0, 500) ?? null,
    ended === 'pending' && wait !== undefined ? new Date(now() + wait * 1000).toISOString() : null,
    new Date(now()).toISOString(),
  ]);
  return outcome.delivered;
}

const LIST = `
  SELECT d.id::float8 AS id, d.endpoint_id AS endpoint, e.url, d.message_id, d.event, d.status, d.attempts, d.next_attempt_at,
    d.last_status, d.last_error, d.created_at, d.delivered_at
  FROM webhook_deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
  WHERE ($1::text IS NULL OR d.status = $1) AND ($2::bigint IS NULL OR d.id < $2) ORDER BY d.id DESC LIMIT $3`;

/** Newest first. */
export async function listDeliveries(
  database: Queryable,
  page: { status: string | null; before: number | null; limit: number },
): Promise<Delivery[]> {
  return (await database.query<Delivery>(LIST, [page.status, page.before, page.limit])).rows;
}

/** Sends it again with the next run, whatever became of it. @returns false when there is none */
export async function redeliver(database: Queryable, id: number): Promise<boolean> {
  const { rowCount } = await database.query(
    `UPDATE webhook_deliveries AS d SET status = 'pending', attempts = 0, next_attempt_at = now()
     FROM webhook_endpoints AS e WHERE d.id = $1 AND e.id = d.endpoint_id AND e.removed_at IS NULL`,
    [id],
  );
  return rowCount === 1;
}

export const DELIVER_JOB = 'deliver_webhooks';

export function deliverJob(database: Queryable, now: () => number): Job {
  return {
    name: DELIVER_JOB,
    schedule: '* * * * *',
    run: ({ signal }) => deliverDue(database, now, signal),
  };
}
