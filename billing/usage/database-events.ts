import type { Pool } from 'pg';
import { ATTRIBUTE_COLUMNS, LIMITS } from '../../schemas/index.ts';
import type { RawEvent, ReadRawEvents } from './ports.ts';

/** Rows fetched at once. */
const PAGE = 2_000;
const DECLARE = `
  DECLARE raw NO SCROLL CURSOR FOR
  SELECT (extract(epoch FROM e."timestamp") * 1000)::float8 AS at, e.key::text AS key, e.type, e.user_id, e.request_id,
    ${ATTRIBUTE_COLUMNS.map(({ name }) => `e.${name}::text AS ${name}`).join(', ')}, e.data::text AS data
  FROM events AS e JOIN unnest($4::int[], $5::bigint[]) AS p(shard, next) ON e.shard = p.shard AND e.log_offset < p.next
  WHERE e.tenant_id = $1 AND e."timestamp" >= $2 AND e."timestamp" < $3`;

interface Row {
  at: number;
  key: string;
  type: string;
  data: string | null;
  [attribute: string]: string | number | null;
}

/** Raw events that are still in the database, a page at a time. */
export function readDatabaseEvents(pool: Pool): ReadRawEvents {
  return async function* ({ tenantId, from, to, positions }) {
    const client = await pool.connect();
    let broken: Error | undefined;
    try {
      await client.query('BEGIN READ ONLY');
      await client.query(DECLARE, [
        tenantId,
        new Date(from).toISOString(),
        new Date(to).toISOString(),
        positions.map((one) => one.shard),
        positions.map((one) => one.next),
      ]);
      for (;;) {
        const { rows } = await client.query<Row>(`FETCH ${PAGE} FROM raw`);
        for (const row of rows) yield toEvent(row);
        if (rows.length < PAGE) break;
      }
    } finally {
      await client.query('ROLLBACK').catch((error: Error) => {
        broken = error;
      });
      client.release(broken);
    }
  };
}

function toEvent({ at, key, type, data, ...columns }: Row): RawEvent {
  const attributes = new Map<string, string>();
  for (const [name, value] of Object.entries(columns)) if (value !== null) attributes.set(name, String(value));
  if (data !== null) flatten(JSON.parse(data, keepSource), '', attributes);
  return { timestamp: at, key, type, attributes };
}

/** A raw event of which all attributes stand in one JSON text: the archive's. */
export function fromJson(
  event: Omit<RawEvent, 'attributes'> & {
    user_id: string | null;
    request_id: string | null;
    data: string;
  },
): RawEvent {
  const { timestamp, key, type, user_id, request_id, data } = event;
  const attributes = new Map<string, string>();
  for (const [name, value] of Object.entries({ user_id, request_id })) if (value !== null) attributes.set(name, value);
  flatten(JSON.parse(data, keepSource), '', attributes);
  return { timestamp, key, type, attributes };
}

/** A number as the text it has, so that no digit is lost. */
class Literal {
  text: string;
  constructor(text: string) {
    this.text = text;
  }
}
const keepSource = (_key: string, value: unknown, context?: { source?: string }): unknown =>
  typeof value === 'number' && context?.source !== undefined ? new Literal(context.source) : value;

/** As ingest does it: scalars under dotted names; arrays, null and long texts are no attributes. */
export function flatten(value: unknown, name: string, into: Map<string, string>): void {
  if (value instanceof Literal) into.set(name, value.text);
  else if (typeof value === 'boolean') into.set(name, String(value));
  else if (typeof value === 'string') {
    if (Buffer.byteLength(value) <= LIMITS.attributeBytes) into.set(name, value);
  } else if (typeof value === 'object' && value !== null && !Array.isArray(value))
    for (const [inner, one] of Object.entries(value)) flatten(one, name === '' ? inner : `${name}.${inner}`, into);
}
