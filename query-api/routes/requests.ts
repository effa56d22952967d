import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import { listOf, tenantsOf } from '../access.ts';
import { type EventRow, oldestEvent, presentEvent, SELECT_EVENT } from '../events/event-rows.ts';
import type { QueryOptions } from '../options.ts';

/** Events of one request that are shown; more are said to be there. */
const MOST = 1_000;
const iso = (ms: number): string => new Date(ms).toISOString();

/** One request's way through all services: its events in the order of their own time. */
export const requestRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory, now }) => {
  app.get(
    '/api/v1/requests/:id',
    {
      schema: {
        tags: ['events'],
        summary: "One request's events in order, across services",
        querystring: Type.Object({ subject: Type.Optional(Type.String()) }),
      },
    },
    async (request, reply) => {
      const principal = await request.authorize('read');
      const { id } = request.params as { id: string };
      const { subject } = request.query as { subject?: string };
      const tenants = await tenantsOf(principal, directory, listOf(subject));
      const { rows } = await pool.query<EventRow>(
        `${SELECT_EVENT} WHERE e.request_id = $1 AND ($2::uuid[] IS NULL OR e.tenant_id = ANY ($2)) AND e."timestamp" >= $3
         ORDER BY e."timestamp", e.received_at, e.shard, e.log_offset LIMIT $4::int`,
        [id, tenants?.map((tenant) => tenant.id) ?? null, iso(await oldestEvent(pool, now())), MOST + 1],
      );
      const [first] = rows;
      if (first === undefined) throw new TidemarkError('not_found', `there is no event of request ${id}`);
      const shown = rows.slice(0, MOST);
      const last = shown.at(-1) ?? first;
      const about = JSON.stringify({
        request_id: id,
        from: iso(first.at),
        to: iso(last.at),
        elapsed_ms: last.at - first.at,
        subjects: [...new Set(shown.map((row) => row.customer_id))],
        sources: [...new Set(shown.map((row) => row.source).filter((source) => source !== null))],
        truncated: rows.length > MOST,
      });
      const events = shown.map(presentEvent).join(',');
      return reply.type('application/json').send(Buffer.from(`${about.slice(0, -1)},"events":[${events}]}`));
    },
  );
};
