import type { Queryable } from '../usage/ports.ts';

export const WEBHOOK_EVENTS = ['statement.closed', 'adjustment.created', 'budget.crossed'] as const;
export type WebhookEvent = (typeof WEBHOOK_EVENTS)[number];

export interface Announcement {
  event: WebhookEvent;
  /** the same however often it is announced: receivers tell repeats by it */
  id: string;
  data: object;
}

const INSERT = `
  INSERT INTO webhook_deliveries (endpoint_id, message_id, event, body)
  SELECT e.id, a.id, a.event, a.body FROM unnest($1::text[], $2::text[], $3::text[]) AS a(id, event, body)
  JOIN webhook_endpoints AS e ON e.removed_at IS NULL AND (e.events = '{}' OR a.event = ANY (e.events))
  ON CONFLICT DO NOTHING`;

/** Puts announcements into the outbox of every endpoint that wants them, in the transaction of their cause. */
export async function announce(database: Queryable, announcements: readonly Announcement[]): Promise<void> {
  if (announcements.length === 0) return;
  const timestamp = new Date().toISOString();
  await database.query(INSERT, [
    announcements.map((one) => one.id),
    announcements.map((one) => one.event),
    announcements.map((one) => JSON.stringify({ type: one.event, timestamp, data: one.data })),
  ]);
}
