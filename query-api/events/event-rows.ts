/** Raw events as rows, and as the CloudEvents that they were sent as. */
import type { Pool } from 'pg';
import { ATTRIBUTE_COLUMNS } from '../../schemas/index.ts';
import { chunkStart } from '../../sinks/index.ts';

declare global {
  interface JSON {
    /** TC39 proposal-json-parse-with-source: a literal that stringify writes as it is. */
    rawJSON(text: string): unknown;
  }
}

const DAY = 86_400_000;
const iso = (ms: number): string => new Date(ms).toISOString();

/** PostgreSQL builds the JSON text, and it goes out as it is: no digit passes through a double. */
const COLUMNS = ATTRIBUTE_COLUMNS.map(({ name }) => `'${name}', e.${name}`).join(', ');
export const SELECT_EVENT = `
  SELECT (extract(epoch FROM e."timestamp") * 1000)::float8 AS at, (extract(epoch FROM e.received_at) * 1000)::float8 AS received_at,
    (extract(epoch FROM e.stored_at) * 1000)::float8 AS stored_at, e.shard, e.log_offset::float8 AS log_offset, e.idempotency_key, e.source,
    e.keyed_by_source, e.type, t.customer_id,
    (jsonb_strip_nulls(jsonb_build_object('user_id', e.user_id, 'request_id', e.request_id, ${COLUMNS})) || coalesce(e.data, '{}'))::text AS data
  FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id`;

export interface EventRow {
  at: number;
  received_at: number;
  stored_at: number;
  shard: number;
  log_offset: number;
  idempotency_key: string;
  source: string | null;
  keyed_by_source: boolean;
  type: string;
  customer_id: string;
  data: string;
}

/** Where the hot range begins: the oldest chunk of raw events, but for days that are back from the archive. */
export async function oldestEvent(pool: Pool, now: number): Promise<number> {
  // Chunks are children by inheritance under both engines, and named by their beginning.
  const { rows } = await pool.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('events') AND c.relname ^@ 'events_'
       AND c.relname <> ALL (SELECT to_char(day, '"events_"YYYYMMDD') FROM archive_days WHERE recalled_until IS NOT NULL) ORDER BY 1 LIMIT 1`,
  );
  return chunkStart(rows[0]?.name ?? '') ?? now - DAY;
}

/** The CloudEvent as it was sent; its data's JSON text goes out unparsed. */
export function presentEvent(row: EventRow): string {
  const envelope = JSON.stringify({
    specversion: '1.0',
    id: row.idempotency_key,
    source: row.source ?? 'tidemark',
    type: row.type,
    subject: row.customer_id,
    time: iso(row.at),
  });
  const { extensions, data } = row.keyed_by_source ? liftExtensions(row.data) : { extensions: '', data: row.data };
  return `{"event":${envelope.slice(0, -1)}${extensions},"data":${data}},"ingestedAt":"${iso(row.received_at)}","storedAt":"${iso(row.stored_at)}"}`;
}

/** Extension attributes of a CloudEvent were kept under the member `cloudevents`. */
function liftExtensions(data: string): { extensions: string; data: string } {
  if (!data.includes('"cloudevents"')) return { extensions: '', data };
  const parsed: unknown = JSON.parse(
    data,
    function (this: unknown, _key: string, value: unknown, context?: { source?: string }) {
      if (typeof value === 'number' && context?.source !== undefined) return JSON.rawJSON(context.source);
      return value;
    },
  );
  if (typeof parsed !== 'object' || parsed === null || !('cloudevents' in parsed)) return { extensions: '', data };
  const { cloudevents, ...rest } = parsed;
  if (typeof cloudevents !== 'object' || cloudevents === null) return { extensions: '', data };
  const text = JSON.stringify(cloudevents).slice(1, -1);
  return { extensions: text === '' ? '' : `,${text}`, data: JSON.stringify(rest) };
}
