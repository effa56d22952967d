import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import type { ArchivedEvent } from '../../tiering/index.ts';
import { fromCursor, limitOf, listOf, tenantsOf, timeOf, toCursor } from '../access.ts';
import { type EventRow, oldestEvent, presentEvent, SELECT_EVENT } from '../events/event-rows.ts';
import type { QueryOptions } from '../options.ts';

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

/** Slices of time, newest first, that grow while they are empty: BRIN prunes each to its pages. Each after these is twice all before. */
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
      const cursor = fromCursor(parameters.cursor, ['time', 'int', 'number']);
      const tenants = await tenantsOf(principal, directory, listOf(parameters.subject));
      const to = timeOf('to', parameters.to) ?? now() + DAY;
      const wide = parameters.request_id !== undefined || parameters.id !== undefined;
      const from =
        timeOf('from', parameters.from) ?? (wide ? await oldestEvent(pool, now()) : Math.min(now(), to) - DAY);
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

      // Before the database: a day that comes back into it in between is looked for in its files.
      const days = await archive.days({ from, to });
      const rows: EventRow[] = [];
      let end = cursor === undefined ? to : Math.min(to, Number(cursor[0]) + 1);
      for (let slice = 0; rows.length <= limit && end > from; slice++) {
        const width = wide ? end - from : (SLICES[slice] ?? 2 * (to - end));
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
          days,
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
      return reply.type('application/json').send(Buffer.from(`[${page.map(presentEvent).join(',')}]`));
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
      `${SELECT_EVENT} WHERE ${where} ORDER BY e."timestamp" DESC, e.shard DESC, e.log_offset DESC LIMIT $${n + 3}::int`,
      values,
    );
    return rows;
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
