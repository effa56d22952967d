/** How an event is withdrawn: a void is an event of this type on the log of the partition of the event that it voids. */
import { createHash } from 'node:crypto';

/** Types that begin like this are Tidemark's own. */
export const RESERVED_TYPE = 'tidemark.';
/** Its key names the event that it voids. */
export const VOID_TYPE = 'tidemark.void';
/** Behind the key of a void's event, in the claim key of the void: two NULs can't come from (source, id), since no identifier holds one. */
export const VOIDED = '\0\0void';
/** Attribute of a correcting event: the idempotency key of the event that it replaces (of the same source, if it has one). */
export const REPLACES = 'replaces';
/** Attributes that say who withdrew an event, and why. */
export const ACTOR = 'tidemark.actor';
export const REASON = 'tidemark.reason';
/** Attribute of a void: when its event was, Unix ms, so that it is found soon. */
export const EVENT_AT = 'tidemark.event_at';
/** Why an event is corrected, as its sender says. */
export const CORRECTION_REASON = 'reason';

/**
 * The claim key of an event: SHA-256(tenant, 0x00, key) cut to 128 bits; of a CloudEvent the key is source, 0x00, id.
 * @returns a UUID, as `events.key` holds it
 */
export function claimKeyOf(event: {
  tenant: string;
  source: string | null;
  keyedBySource: boolean;
  key: string;
}): string {
  const hash = createHash('sha256').update(`${event.tenant}\0`);
  if (event.keyedBySource) hash.update(`${event.source ?? ''}\0`);
  return uuidOf(hash.update(event.key).digest());
}

/** The first 16 bytes as a UUID. */
export function uuidOf(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
