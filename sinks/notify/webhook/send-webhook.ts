import { createHmac, randomBytes } from 'node:crypto';

/** A message for one endpoint. */
export interface WebhookMessage {
  url: string;
  /** `whsec_` and base64, as `makeWebhookSecret` makes it */
  secret: string;
  /** the same for every attempt: receivers tell repeats by it */
  id: string;
  /** JSON text */
  body: string;
}

/** What came of an attempt: the HTTP status, or why there was none. */
export type WebhookOutcome = { delivered: boolean; status: number | null; error: string | null };

const PREFIX = 'whsec_';

/** 24 random bytes in the form that Standard Webhooks libraries read. */
export const makeWebhookSecret = (): string => `${PREFIX}${randomBytes(24).toString('base64')}`;

/** The `webhook-signature` of the Standard Webhooks specification: `v1,` and HMAC-SHA256 over id.timestamp.body. */
export function signWebhook({ id, secret, body }: Omit<WebhookMessage, 'url'>, timestampSeconds: number): string {
  const key = Buffer.from(secret.slice(PREFIX.length), 'base64');
  return `v1,${createHmac('sha256', key).update(`${id}.${timestampSeconds}.${body}`).digest('base64')}`;
}

/**
 * Posts one message. Redirects are not followed: what is signed is for this address.
 * @param nowMs Unix ms, for the signature @returns never throws
 */
export async function sendWebhook(
  message: WebhookMessage,
  { nowMs, timeoutMs = 15_000 }: { nowMs: number; timeoutMs?: number },
): Promise<WebhookOutcome> {
  const timestamp = Math.floor(nowMs / 1000);
  try {
    const answer = await fetch(message.url, {
      method: 'POST',
      redirect: 'manual',
      signal: AbortSignal.timeout(timeoutMs),
      headers: {
        'content-type': 'application/json',
        'user-agent': 'Tidemark',
        'webhook-id': message.id,
        'webhook-timestamp': String(timestamp),
        'webhook-signature': signWebhook(message, timestamp),
      },
      body: message.body,
    });
    await answer.body?.cancel();
    return answer.ok
      ? { delivered: true, status: answer.status, error: null }
      : { delivered: false, status: answer.status, error: `answered ${answer.status}` };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return {
      delivered: false,
      status: null,
      error: cause instanceof Error ? cause.message || cause.name : String(cause),
    };
  }
}
