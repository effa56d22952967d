import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import { listShards, MOVE_JOB } from '../../tenants/index.ts';
import { requirePlatform } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const ShardName = Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,62}$' });
const NewShard = Type.Object(
  {
    id: ShardName,
    database_url: Type.String({ maxLength: 2048, pattern: '^postgres(ql)?://[^\\u0000-\\u0020]+$' }),
    topic: Type.String({ pattern: '^[A-Za-z0-9._-]{1,200}$' }),
    capacity: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
  },
  { additionalProperties: false },
);
const Move = Type.Object({ shard: ShardName }, { additionalProperties: false });

/** Shards, and moving a tenant from one to another. */
export const shardRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, tenancy, directory, jobs }) => {
  const list = async () => ({
    data: (await listShards(pool)).map(({ isOpen, ...shard }) => ({ ...shard, is_open: isOpen })),
    next: null,
  });

  app.get(
    '/api/v1/shards',
    { schema: { tags: ['tenants'], summary: 'Where tenants live: databases and topics' } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      return list();
    },
  );

  app.post<{ Body: Static<typeof NewShard> }>(
    '/api/v1/shards',
    { schema: { tags: ['tenants'], summary: 'Add a shard; its database is prepared', body: NewShard } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { id, database_url: databaseUrl, topic, capacity } = request.body;
      await tenancy.addShard({ id, databaseUrl, topic, capacity: capacity ?? 200 });
      return reply.code(201).send(await list());
    },
  );

  app.post<{ Params: { ref: string }; Body: Static<typeof Move> }>(
    '/api/v1/tenants/:ref/move',
    { schema: { tags: ['tenants'], summary: 'Move a tenant to another shard', body: Move } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const tenant = await directory.find(request.params.ref);
      if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${request.params.ref}`);
      const { shard } = request.body;
      await tenancy.shards.urlOf(shard);
      if ((await tenancy.shards.shardOf(tenant.id)) === shard)
        throw new TidemarkError('already_there', `the tenant lives on shard ${shard} already`);
      const run = await jobs.request(MOVE_JOB, { tenant: tenant.id, to: shard });
      return reply.code(202).send({ job: run.id, tenant: tenant.customerId, shard });
    },
  );
};
