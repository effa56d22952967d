import { TidemarkError } from '../../schemas/index.ts';
import { makeWebhookSecret } from '../../sinks/index.ts';
import type { Queryable } from '../usage/ports.ts';
import { WEBHOOK_EVENTS, type WebhookEvent } from './outbox.ts';

export interface Endpoint {
  id: string;
  url: string;
  /** empty: every event */
  events: WebhookEvent[];
  created_at: Date;
}

/** @returns with the secret, which is shown once @throws TidemarkError `invalid_body` */
export async function createEndpoint(
  database: Queryable,
  wanted: { url: string; events: readonly string[] },
): Promise<Endpoint & { secret: string }> {
  const url = URL.parse(wanted.url);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '')
    throw new TidemarkError('invalid_body', 'url must be http:// or https://, without a password in it');
  const unknown = wanted.events.find((event) => !WEBHOOK_EVENTS.some((one) => one === event));
  if (unknown !== undefined)
    throw new TidemarkError('invalid_body', `"${unknown}" is no event; there are ${WEBHOOK_EVENTS.join(', ')}`);
  const secret = makeWebhookSecret();
  const { rows } = await database.query<Endpoint>(
    'INSERT INTO webhook_endpoints (url, events, secret) VALUES ($1, $2, $3) RETURNING id, url, events, created_at',
    [wanted.url, wanted.events, secret],
  );
  const [made] = rows;
  if (made === undefined) throw new Error('the endpoint is gone');
  return { ...made, secret };
}

export async function listEndpoints(database: Queryable): Promise<Endpoint[]> {
  const { rows } = await database.query<Endpoint>(
    'SELECT id, url, events, created_at FROM webhook_endpoints WHERE removed_at IS NULL ORDER BY created_at, id LIMIT 1000',
  );
  return rows;
}

/** What is under way for it is given up. @returns false when there is none */
export async function removeEndpoint(database: Queryable, id: string): Promise<boolean> {
  const { rows } = await database.query(
    `WITH removed AS (UPDATE webhook_endpoints SET removed_at = now() WHERE id = $1 AND removed_at IS NULL RETURNING id),
      ended AS (UPDATE webhook_deliveries SET status = 'failed', last_error = 'the endpoint was removed'
        FROM removed WHERE endpoint_id = removed.id AND status = 'pending')
     SELECT id FROM removed`,
    [id],
  );
  return rows.length > 0;
}
