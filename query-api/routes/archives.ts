import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { Value } from 'typebox/value';
import { type Tenant, TidemarkError } from '../../schemas/index.ts';
import { RESTORE_SPEEDS } from '../../sinks/index.ts';
import {
  applyLifecycle,
  checkLifecycle,
  costView,
  holdTenant,
  listDays,
  listHolds,
  releaseTenant,
  requireDay,
  requireRange,
  requireRecallable,
  restoreDay,
} from '../../tiering/index.ts';
import { requirePlatform } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const tags = ['archives'];
const Range = Type.Object({ from: Type.Optional(Type.String()), to: Type.Optional(Type.String()) });
const Run = Type.Object({
  before: Type.Optional(Type.String({ description: 'first day that stays, UTC; default: as set' })),
});
const Restore = Type.Object({
  days: Type.Optional(Type.Integer({ minimum: 1, maximum: 365, description: 'how long the copy stays' })),
  speed: Type.Optional(Type.Union(RESTORE_SPEEDS.map((speed) => Type.Literal(speed)))),
});

const Recall = Type.Object({
  days: Type.Integer({ minimum: 0, maximum: 365, description: 'how long the day stays from now on; 0 ends its stay' }),
});
const Hold = Type.Object({ reason: Type.String({ minLength: 1, maxLength: 1000 }) });
const Erase = Type.Object({
  tenant: Type.String({ minLength: 1, description: 'id, slug or customer_id' }),
  user_id: Type.Optional(Type.String({ minLength: 1, maxLength: 256, description: 'absent: the tenant as a whole' })),
  reason: Type.String({ minLength: 1, maxLength: 1000 }),
});

/** The archive: what is in it, archiving, verifying and restoring. All of it is the platform's. */
export const archiveRoutes: FastifyPluginAsync<QueryOptions> = async (app, { tiering, jobs, directory }) => {
  app.get(
    '/api/v1/archives',
    { schema: { tags, summary: 'Days in the archive, newest first, and where their files are', querystring: Range } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      return { data: await listDays(tiering, requireRange(request.query as Record<string, unknown>)), next: null };
    },
  );

  app.post(
    '/api/v1/archives/run',
    { schema: { tags, summary: 'Archive days before a day, and late events of days in the archive', body: Run } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { before } = request.body as { before?: string };
      const params = before === undefined ? {} : { before: requireDay('before', before) };
      return reply.code(202).send({ job: (await jobs.request('archive', params)).id });
    },
  );

  app.post(
    '/api/v1/archives/verify',
    { schema: { tags, summary: 'Read the archive back and hold it against its manifests', body: Range } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const params = requireRange(request.body as Record<string, unknown>);
      return reply.code(202).send({ job: (await jobs.request('archive_verify', params)).id });
    },
  );

  app.post(
    '/api/v1/archives/:day/restore',
    { schema: { tags, summary: 'Ask for a readable copy of a day in a cold storage class' } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { day } = request.params as { day: string };
      const { days = 7, speed = 'Standard' } = parseRestore(request.body);
      return reply.code(202).send(await restoreDay(tiering, requireDay('day', day), { days, speed }));
    },
  );

  app.post(
    '/api/v1/archives/:day/recall',
    { schema: { tags, summary: 'Bring a day back into the database for a stay; its files stay too', body: Recall } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const day = requireDay('day', (request.params as { day: string }).day);
      const { days } = request.body as Static<typeof Recall>;
      await requireRecallable(tiering, day);
      return reply.code(202).send({ job: (await jobs.request('archive_recall', { day, days })).id });
    },
  );

  app.get(
    '/api/v1/archives/cost',
    { schema: { tags, summary: 'Bytes and monthly price by tier and tenant' } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      return costView(tiering);
    },
  );

  app.get(
    '/api/v1/archives/lifecycle',
    { schema: { tags, summary: 'The lifecycle rules that the store has, and whether they are those of the settings' } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      return { rules: await tiering.store.lifecycle(), checks: await checkLifecycle(tiering) };
    },
  );

  app.put(
    '/api/v1/archives/lifecycle',
    { schema: { tags, summary: "Put the settings' lifecycle rules on the store; rules of others stay" } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      return { rules: await applyLifecycle(tiering), checks: await checkLifecycle(tiering) };
    },
  );

  app.get(
    '/api/v1/archives/holds',
    { schema: { tags, summary: 'Tenants under legal hold: their archive does not expire' } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      return { data: await listHolds(tiering.pool), next: null };
    },
  );

  app.put(
    '/api/v1/archives/holds/:tenant',
    { schema: { tags, summary: 'Put a tenant under legal hold', body: Hold } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const { id } = await tenantOf((request.params as { tenant: string }).tenant);
      const { reason } = request.body as Static<typeof Hold>;
      return { tenant_id: id, days: await holdTenant(tiering, id, reason) };
    },
  );

  app.delete('/api/v1/archives/holds/:tenant', { schema: { tags, summary: 'End a legal hold' } }, async (request) => {
    requirePlatform(await request.authorize('admin'));
    const { id } = await tenantOf((request.params as { tenant: string }).tenant);
    return { tenant_id: id, days: await releaseTenant(tiering, id) };
  });

  app.post(
    '/api/v1/archives/erase',
    {
      schema: {
        tags,
        summary: 'Forget a tenant, or one of its users: database, archive, names in rollups',
        body: Erase,
      },
    },
    async (request, reply) => {
      const principal = await request.authorize('admin');
      requirePlatform(principal);
      const { tenant, user_id = null, reason } = request.body as Static<typeof Erase>;
      const { id } = await tenantOf(tenant);
      if (user_id?.includes('\0')) throw new TidemarkError('invalid_parameter', 'no user_id has a NUL');
      const params = { tenant_id: id, user_id, reason, by: principal.keyId };
      return reply.code(202).send({ job: (await jobs.request('archive_erase', params)).id });
    },
  );

  async function tenantOf(reference: string): Promise<Tenant> {
    const tenant = await directory.find(reference);
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${reference}`);
    return tenant;
  }
};

/** The body may be left out. */
function parseRestore(body: unknown): Static<typeof Restore> {
  if (body === undefined || body === null) return {};
  if (!Value.Check(Restore, body))
    throw new TidemarkError('invalid_body', `days is 1 to 365, speed one of ${RESTORE_SPEEDS.join(', ')}`);
  return body;
}
