import type { Pool } from 'pg';
import { decodeEvent, type PlainEvent, writeLong } from '../../schemas/index.ts';

interface Whose {
  tenantId: string;
  /** null: the tenant as a whole */
  userId: string | null;
}

/** Letters looked at a time: one may be as long as a record of the log. */
const PAGE = 100;
/** Stands for the tenant where it could not be read. */
const NOBODY = '00000000-0000-0000-0000-000000000000';

const CANDIDATES = `
  SELECT d.id::float8 AS id, d.tenant_id, d.payload, t.customer_id FROM dead_letters AS d JOIN tenants AS t ON t.id = $1
  WHERE d.id > $2 AND (
    d.tenant_id = $1 AND ($3::bytea IS NULL OR position($3::bytea IN d.payload) > 0)
    OR d.tenant_id = '${NOBODY}' AND position(convert_to(t.customer_id, 'UTF8') IN d.payload) > 0
      AND ($3::bytea IS NULL OR position($3::bytea IN d.payload) > 0))
  ORDER BY d.id LIMIT ${PAGE}`;

/**
 * Dead letters of a tenant, or of one of its users. A record that can be decoded says whose it is; of one that can't, every
 * text that it holds counts, and so does one whose tenant nobody could read.
 * @returns ids, a page at a time
 */
export async function* findDeadLetters(pool: Pool, { tenantId, userId }: Whose): AsyncIterable<number[]> {
  const user = userId === null ? null : Buffer.from(userId);
  for (let after = 0; ; ) {
    const { rows } = await pool.query<{ id: number; tenant_id: string; payload: Buffer; customer_id: string }>(
      CANDIDATES,
      [tenantId, after, user],
    );
    const found = rows.filter(
      ({ tenant_id, payload, customer_id }) =>
        (tenant_id === tenantId || isNamed(payload, customer_id, ({ tenant }) => tenant)) &&
        (userId === null || isNamed(payload, userId, ({ user_id }) => user_id)),
    );
    if (found.length > 0) yield found.map((row) => row.id);
    const last = rows.at(-1);
    if (last === undefined || rows.length < PAGE) return;
    after = last.id;
  }
}

export async function eraseDeadLetters(pool: Pool, whose: Whose): Promise<void> {
  for await (const ids of findDeadLetters(pool, whose))
    await pool.query('DELETE FROM dead_letters WHERE id = ANY ($1::bigint[])', [ids]);
}

function isNamed(payload: Buffer, name: string, fieldOf: (event: PlainEvent) => string | null): boolean {
  const event = decodeEvent(payload);
  return event === undefined ? holdsText(payload, name) : fieldOf(event) === name;
}

/** A text of Avro stands behind its length, one of JSON in quotes. */
function holdsText(payload: Buffer, text: string): boolean {
  const length = Buffer.alloc(10);
  const prefix = length.subarray(0, writeLong(length, 0, Buffer.byteLength(text)));
  return payload.includes(Buffer.concat([prefix, Buffer.from(text)])) || payload.includes(JSON.stringify(text));
}
