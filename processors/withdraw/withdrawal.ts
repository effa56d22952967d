import type { ClientBase, Pool } from 'pg';
import { uuidOf } from '../../schemas/index.ts';
import type { KnownTenant } from '../rollups/rollups.ts';

/** One event that takes another one out: a void, or a correction. */
export interface Withdrawal {
  /** index of its record among the batch's sound ones */
  sound: number;
  offset: number;
  action: 'void' | 'replace';
  tenant: KnownTenant;
  /** claim key of the withdrawn event, 16 bytes */
  target: Uint8Array;
  /** its own claim key, 16 bytes */
  by: Uint8Array;
  /** of the withdrawn event */
  idempotencyKey: string;
  source: string | null;
  actor: string | null;
  reason: string | null;
  /** time of the withdrawn event where the sender knew it, Unix ms */
  hint: number | null;
  /** time of the withdrawn event, Unix ms; null: it has not been seen */
  eventAt: number | null;
}

/** A key as a string, for maps: every byte is one character. */
export const keyText = (bytes: Uint8Array, at = 0): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset + at, 16).toString('latin1');

const INSERT = `
  INSERT INTO withdrawals (shard, log_offset, action, tenant_id, key, event_at, by_key, idempotency_key, source, actor, reason)
  SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::uuid[], $8::text[], $9::text[], $10::text[], $11::text[])`;
const ARRIVED = `
  UPDATE withdrawals AS w SET event_at = k.at FROM unnest($2::uuid[], $3::timestamptz[]) AS k(key, at)
  WHERE w.shard = $1 AND w.key = k.key`;

/** Writes who withdrew what, within the batch's transaction: from here on `StoredEvents` leaves these events out. */
export async function writeWithdrawals(
  client: ClientBase,
  shard: number,
  withdrawals: readonly Withdrawal[],
): Promise<void> {
  if (withdrawals.length === 0) return;
  await client.query(INSERT, [
    shard,
    withdrawals.map((one) => one.offset),
    withdrawals.map((one) => one.action),
    withdrawals.map((one) => uuidOf(one.tenant.id)),
    withdrawals.map((one) => uuidOf(one.target)),
    withdrawals.map((one) => (one.eventAt === null ? null : new Date(one.eventAt).toISOString())),
    withdrawals.map((one) => uuidOf(one.by)),
    withdrawals.map((one) => one.idempotencyKey),
    withdrawals.map((one) => one.source),
    withdrawals.map((one) => one.actor),
    withdrawals.map((one) => one.reason),
  ]);
}

/** Withdrawn events that have come after their withdrawal. */
export async function writeArrivals(
  client: ClientBase,
  shard: number,
  arrived: readonly { key: Uint8Array; at: number }[],
): Promise<void> {
  if (arrived.length === 0) return;
  await client.query(ARRIVED, [
    shard,
    arrived.map((one) => uuidOf(one.key)),
    arrived.map((one) => new Date(one.at).toISOString()),
  ]);
}

/** Keys of withdrawn events that have not come yet. @param since older ones can't come any more (Unix ms) */
export async function readOrphans(pool: Pool, shard: number, since: number): Promise<Set<string>> {
  const { rows } = await pool.query<{ key: Buffer }>(
    'SELECT DISTINCT uuid_send(key) AS key FROM withdrawals WHERE shard = $1 AND event_at IS NULL AND created_at > $2',
    [shard, new Date(since)],
  );
  return new Set(rows.map((row) => keyText(row.key)));
}
