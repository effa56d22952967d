import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import { TidemarkError } from '../../schemas/index.ts';
import { RESTORE_SPEEDS } from '../../sinks/index.ts';
import { listDays, requireDay, requireRange, restoreDay } from '../../tiering/index.ts';
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

/** The archive: what is in it, archiving, verifying and restoring. All of it is the platform's. */
export const archiveRoutes: FastifyPluginAsync<QueryOptions> = async (app, { tiering, jobs }) => {
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
      return reply.code(202).send({ job: (await jobs.request('archive-verify', params)).id });
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
};

/** The body may be left out. */
function parseRestore(body: unknown): Type.Static<typeof Restore> {
  if (body === undefined || body === null) return {};
  if (!Value.Check(Restore, body))
    throw new TidemarkError('invalid_body', `days is 1 to 365, speed one of ${RESTORE_SPEEDS.join(', ')}`);
  return body;
}
