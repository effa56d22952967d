import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { ATTRIBUTE_COLUMNS, TidemarkError } from '../../schemas/index.ts';
import { chunkStart } from '../../sinks/index.ts';
import type { ArchivedEvent } from '../../tiering/index.ts';
import { fromCursor, limitOf, listOf, tenantsOf, timeOf, toCursor } from '../access.ts';
import type { QueryOptions } from '../options.ts';

declare global {
  interface JSON {
    /** TC39 proposal-json-parse-with-source: a literal that stringify writes as it is. */
    rawJSON(text: string): unknown;
  }
}

const DAY = 86_400_000;
const Parameters = Type.Object({
  id: Type.Optional(Type.String()),
  subject: Type.Optional(Type.Union([Type.String(), Type.Array(Type.String())])),
  request_id: Type.Optional(Type.String()),
  user_id: Type.Optional(Type.String()),
  type: Type.Optional(Type.String()),
  from: Type.Optional(Type.String()),
  to: Type.Optional(Type.String()),
  ingestedAtFrom: Type.Optional(Type.String()),
  ingestedAtTo: Type.Optional(Type.String()),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
});

/** PostgreSQL builds the JSON text, and it goes out as it is: no digit passes through a double. */
const COLUMNS = ATTRIBUTE_COLUMNS.map(({ name }) => `'${name}', e.${name}`).join(', ');
const SELECT = `
  SELECT (extract(epoch FROM e."timestamp") * 1000)::float8 AS at, (extract(epoch FROM e.received_at) * 1000)::float8 AS received_at,
    (extract(epoch FROM e.stored_at) * 1000)::float8 AS stored_at, e.shard, e.log_offset::float8 AS log_offset, e.idempotency_key, e.source,
    e.keyed_by_source, e.type, t.customer_id,
    (jsonb_strip_nulls(jsonb_build_object('user_id', e.user_id, 'request_id', e.request_id, ${COLUMNS})) || coalesce(e.data, '{}'))::text AS data
  FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id`;

interface EventRow {
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

/** Slices of time, newest first, that grow while they are empty: BRIN prunes each to its pages. */
const SLICES = [60_000, 600_000, 3_600_000, 6 * 3_600_000, DAY, 7 * DAY, 30 * DAY];

/** Search of raw events, in OpenMeter's shape. */
export const eventRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory, archive, now }) => {
  app.get(
    '/api/v1/events',
    { schema: { tags: ['events'], summary: 'Search raw events, newest first', querystring: Parameters } },
    async (request, reply) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const cursor = fromCursor(parameters.cursor, ['number', 'number', 'number']);
      const tenants = await tenantsOf(principal, directory, listOf(parameters.subject));
      const to = timeOf('to', parameters.to) ?? now() + DAY;
      const wide = parameters.request_id !== undefined || parameters.id !== undefined;
      const from = timeOf('from', parameters.from) ?? (wide ? await oldest() : Math.min(now(), to) - DAY);
      if (from >= to) throw new TidemarkError('invalid_range', '`from` must be before `to`');

      const values: unknown[] = [];
      const bind = (value: unknown, type: string) => `$${values.push(value)}::${type}`;
      const conditions: string[] = [];
      if (tenants !== null)
        conditions.push(
          `e.tenant_id = ANY (${bind(
            tenants.map((tenant) => tenant.id),
            'uuid[]',
          )})`,
        );
      for (const [name, column] of Object.entries({
        id: 'idempotency_key',
        request_id: 'request_id',
        user_id: 'user_id',
        type: 'type',
      }))
        if (parameters[name] !== undefined)
          conditions.push(`e.${column} = ${bind(textOf(name, parameters[name]), 'text')}`);
      const received = {
        from: timeOf('ingestedAtFrom', parameters.ingestedAtFrom),
        to: timeOf('ingestedAtTo', parameters.ingestedAtTo),
      };
      if (received.from !== undefined) conditions.push(`e.received_at >= ${bind(iso(received.from), 'timestamptz')}`);
      if (received.to !== undefined) conditions.push(`e.received_at < ${bind(iso(received.to), 'timestamptz')}`);
      if (cursor !== undefined)
        conditions.push(
          `(e."timestamp", e.shard, e.log_offset) < (${bind(iso(Number(cursor[0])), 'timestamptz')}, ${bind(cursor[1], 'int')}, ${bind(cursor[2], 'bigint')})`,
        );

      const rows: EventRow[] = [];
      let end = cursor === undefined ? to : Math.min(to, Number(cursor[0]) + 1);
      for (let slice = 0; rows.length <= limit && end > from; slice++) {
        const width = wide ? end - from : (SLICES[Math.min(slice, SLICES.length - 1)] ?? DAY);
        const start = Math.max(from, end - width);
        rows.push(...(await search(conditions, values, start, end, limit + 1 - rows.length)));
        end = start;
      }
      // After the database: a day that left it in between is found here, and one that was still there only once.
      const archived = await archive.search(
        {
          tenantIds: tenants?.map((tenant) => tenant.id) ?? null,
          from: rows.length > limit ? Math.max(from, rows.at(-1)?.at ?? from) : from,
          to,
          receivedFrom: received.from,
          receivedTo: received.to,
          idempotencyKey: optionalText('id', parameters.id),
          requestId: optionalText('request_id', parameters.request_id),
          userId: optionalText('user_id', parameters.user_id),
          type: optionalText('type', parameters.type),
          after:
            cursor === undefined
              ? undefined
              : { at: Number(cursor[0]), shard: Number(cursor[1]), logOffset: Number(cursor[2]) },
        },
        limit + 1,
      );
      const all = archived.length === 0 ? rows : merged(rows, archived);
      const page = all.slice(0, limit);
      const last = page.at(-1);
      if (all.length > limit && last !== undefined) {
        const next = new URL(request.url, 'http://localhost');
        next.searchParams.set('cursor', toCursor([last.at, last.shard, last.log_offset]));
        reply.header('link', `<${next.pathname}${next.search}>; rel="next"`);
      }
      return reply.type('application/json').send(Buffer.from(`[${page.map(present).join(',')}]`));
    },
  );

  async function search(
    conditions: readonly string[],
    given: readonly unknown[],
    from: number,
    to: number,
    limit: number,
  ): Promise<EventRow[]> {
    const values = [...given, iso(from), iso(to), limit];
    const n = given.length;
    const where = [
      ...conditions,
      `e."timestamp" >= $${n + 1}::timestamptz`,
      `e."timestamp" < $${n + 2}::timestamptz`,
    ].join(' AND ');
    const { rows } = await pool.query<EventRow>(
      `${SELECT} WHERE ${where} ORDER BY e."timestamp" DESC, e.shard DESC, e.log_offset DESC LIMIT $${n + 3}::int`,
      values,
    );
    return rows;
  }

  /** Where the hot range begins: the oldest chunk of raw events. */
  async function oldest(): Promise<number> {
    // Chunks are children by inheritance under both engines, and named by their beginning.
    const { rows } = await pool.query<{ name: string }>(
      `SELECT c.relname AS name FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('events') AND c.relname ^@ 'events_' ORDER BY 1 LIMIT 1`,
    );
    return chunkStart(rows[0]?.name ?? '') ?? now() - DAY;
  }
};

const iso = (ms: number): string => new Date(ms).toISOString();

/** PostgreSQL has no NUL in a text: nothing can match it. */
function textOf(name: string, value: unknown): string {
  const text = String(value);
  if (text.includes('\0') || !text.isWellFormed())
    throw new TidemarkError('invalid_parameter', `${name} has a character that no event can have`);
  return text;
}

const optionalText = (name: string, value: unknown): string | undefined =>
  value === undefined ? undefined : textOf(name, value);

/** Rows of database and archive in the order of the answer, each once. */
function merged(rows: readonly EventRow[], archived: readonly ArchivedEvent[]): EventRow[] {
  const seen = new Set(rows.map((row) => `${row.shard} ${row.log_offset}`));
  const more = archived.filter((row) => !seen.has(`${row.shard} ${row.log_offset}`)).map(fromArchive);
  return [...rows, ...more].sort((a, b) => b.at - a.at || b.shard - a.shard || b.log_offset - a.log_offset);
}

/** When an archived event was stored is not kept: it was received then. */
function fromArchive({ user_id, request_id, data, ...event }: ArchivedEvent): EventRow {
  const members = Object.entries({ user_id, request_id }).filter(([, value]) => value !== null);
  const head = JSON.stringify(Object.fromEntries(members)).slice(1, -1);
  const rest = data.slice(1);
  return { ...event, stored_at: event.received_at, data: `{${head}${head !== '' && rest !== '}' ? ',' : ''}${rest}` };
}

/** The CloudEvent as it was sent; its data's JSON text goes out unparsed. */
function present(row: EventRow): string {
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
