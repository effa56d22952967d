import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import {
  createEndpoint,
  DELIVER_JOB,
  listDeliveries,
  listEndpoints,
  redeliver,
  removeEndpoint,
  WEBHOOK_EVENTS,
} from '../../billing/index.ts';
import { TidemarkError } from '../../schemas/index.ts';
import { fromCursor, limitOf, requirePlatform, toCursor, UUID } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const NewEndpoint = Type.Object(
  {
    url: Type.String({ maxLength: 2048 }),
    events: Type.Optional(
      Type.Array(Type.String(), { maxItems: 20, description: `${WEBHOOK_EVENTS.join(', ')}; default: all` }),
    ),
  },
  { additionalProperties: false },
);
const Filter = Type.Object({
  status: Type.Optional(Type.String({ description: 'pending, delivered, failed' })),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
});
const STATUSES = ['pending', 'delivered', 'failed'];

/** Webhooks: who is told, and the log of deliveries. */
export const webhookRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, jobs }) => {
  app.post<{ Body: Static<typeof NewEndpoint> }>(
    '/api/v1/webhooks',
    {
      schema: {
        tags: ['billing'],
        summary: 'Tell an address of events, signed as Standard Webhooks says; the secret is shown once',
        body: NewEndpoint,
      },
    },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { url, events } = request.body;
      return reply.code(201).send(await createEndpoint(pool, { url, events: events ?? [] }));
    },
  );

  app.get(
    '/api/v1/webhooks',
    { schema: { tags: ['billing'], summary: 'Addresses that are told' } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      return { data: await listEndpoints(pool), next: null };
    },
  );

  app.delete(
    '/api/v1/webhooks/:id',
    { schema: { tags: ['billing'], summary: 'Tell an address no more' } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { id } = request.params as { id: string };
      if (!UUID.test(id) || !(await removeEndpoint(pool, id)))
        throw new TidemarkError('not_found', `there is no webhook ${id}`);
      return reply.code(204).send();
    },
  );

  app.get(
    '/api/v1/webhooks/deliveries',
    { schema: { tags: ['billing'], summary: 'The log of deliveries, newest first', querystring: Filter } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const parameters = request.query as Record<string, unknown>;
      if (parameters.status !== undefined && !STATUSES.includes(String(parameters.status)))
        throw new TidemarkError('invalid_parameter', `status must be one of ${STATUSES.join(', ')}`);
      const limit = limitOf(parameters.limit, 100, 1000);
      const before = Number(fromCursor(parameters.cursor, ['number'])?.[0] ?? 0) || null;
      const status = parameters.status === undefined ? null : String(parameters.status);
      const found = await listDeliveries(pool, { status, before, limit: limit + 1 });
      return {
        data: found.slice(0, limit),
        next: found.length > limit ? toCursor([found[limit - 1]?.id ?? 0]) : null,
      };
    },
  );

  app.post(
    '/api/v1/webhooks/deliveries/:id/retry',
    { schema: { tags: ['billing'], summary: 'Send a delivery again' } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { id } = request.params as { id: string };
      if (!/^\d{1,15}$/.test(id) || !(await redeliver(pool, Number(id))))
        throw new TidemarkError('not_found', `there is no delivery ${id}`);
      const run = await jobs.request(DELIVER_JOB, {});
      return reply.code(202).send({ job: run.id });
    },
  );
};
