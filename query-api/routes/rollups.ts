import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import { requireDay } from '../../tiering/index.ts';
import { requirePlatform, tenantsOf } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Verify = Type.Object({
  from: Type.String({ description: 'first day, YYYY-MM-DD, UTC' }),
  to: Type.String({ description: 'last day' }),
  meter: Type.Optional(Type.String({ maxLength: 64, description: 'slug; absent: all' })),
  tenant: Type.Optional(Type.String({ maxLength: 128, description: 'id, slug or customer_id; absent: all' })),
  repair: Type.Optional(Type.Boolean({ description: 'make stored rollups what was recounted' })),
});

/** Rollups held against the raw events that they were counted from. The platform's. */
export const rollupRoutes: FastifyPluginAsync<QueryOptions> = async (app, { catalogue, directory, jobs }) => {
  app.post<{ Body: Static<typeof Verify> }>(
    '/api/v1/rollups/verify',
    {
      schema: {
        tags: ['operations'],
        summary: 'Recount days from raw events, in the database or the archive, and compare; or repair',
        body: Verify,
      },
    },
    async (request, reply) => {
      const principal = await request.authorize('admin');
      requirePlatform(principal);
      const { meter, tenant, repair } = request.body;
      const from = requireDay('from', request.body.from);
      const to = requireDay('to', request.body.to);
      if (to < from) throw new TidemarkError('invalid_range', '`to` is the last day: not before `from`');
      if (meter !== undefined && (await catalogue.find(meter)) === undefined)
        throw new TidemarkError('unknown_meter', `there is no meter ${meter}`);
      const [scope] = (await tenantsOf(principal, directory, tenant === undefined ? [] : [tenant])) ?? [];
      const run = await jobs.request('rollups_verify', {
        from,
        to,
        by: principal.keyId,
        ...(meter === undefined ? {} : { meter }),
        ...(scope === undefined ? {} : { tenant_id: scope.id }),
        ...(repair === true ? { repair } : {}),
      });
      return reply.code(202).send({ job: run.id });
    },
  );
};
