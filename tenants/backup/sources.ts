/** What is read for a backup, and how two copies are compared. */
import type { ClientBase } from 'pg';
import { ATTRIBUTE_COLUMNS, VOID_TYPE } from '../../schemas/index.ts';

/** JSON text holds no control characters, so with these as quote and delimiter a CSV line is the text itself. */
export const AS_LINES = `(FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')`;

const COLUMNS = ATTRIBUTE_COLUMNS.map(({ name }) => `'${name}', e.${name}`).join(', ');
const DATA = `(jsonb_strip_nulls(jsonb_build_object('user_id', e.user_id, 'request_id', e.request_id, ${COLUMNS})) || coalesce(e.data - 'tidemark', '{}'))`;
const TIME = `to_char(e."timestamp" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

/**
 * A tenant's raw events that count (not voided, not replaced), one text each: `C` and a CloudEvent, or `L` and a log line,
 * without the tenant, so that they can be sent again for another one.
 * @param tenantId UUID, checked
 */
export const eventTexts = (tenantId: string): string => `
  SELECT CASE WHEN e.keyed_by_source
    THEN 'C' || jsonb_build_object('specversion', '1.0', 'id', e.idempotency_key, 'source', e.source, 'type', e.type, 'time', ${TIME}, 'data', ${DATA})::text
    ELSE 'L' || (${DATA} || jsonb_strip_nulls(jsonb_build_object('timestamp', ${TIME}, 'idempotency_key', e.idempotency_key, 'type', e.type, 'source', e.source)))::text
    END AS line
  FROM tidemark.events AS e
  WHERE e.tenant_id = '${tenantId}'::uuid AND e.type <> '${VOID_TYPE}'
    AND NOT EXISTS (SELECT FROM tidemark.withdrawals AS w WHERE w.tenant_id = e.tenant_id AND w.key = e.key)`;

/** Rows and a checksum of them in any order (hashtextextended of each row's text, added up). */
export async function checksumOf(
  client: Pick<ClientBase, 'query'>,
  select: string,
): Promise<{ rows: number; checksum: string }> {
  const { rows } = await client.query<{ rows: number; checksum: string }>(
    `SELECT count(*)::float8 AS rows, coalesce(sum(hashtextextended(r::text, 0)::numeric), 0)::text AS checksum FROM (${select}) AS r`,
  );
  return rows[0] ?? { rows: 0, checksum: '0' };
}
