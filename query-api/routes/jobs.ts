import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import { fromCursor, limitOf, requirePlatform, toCursor, UUID } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Page = Type.Object({
  job: Type.Optional(Type.String()),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
});

/** Runs of jobs: what runs, what ran, and how it went. */
export const jobRoutes: FastifyPluginAsync<QueryOptions> = async (app, { jobs }) => {
  app.get(
    '/api/v1/jobs',
    { schema: { tags: ['operations'], summary: 'Runs of jobs, newest first', querystring: Page } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      const parameters = request.query as Record<string, string | undefined>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const [createdAt, id] = fromCursor(parameters.cursor, ['moment', 'uuid']) ?? [];
      const runs = await jobs.list({
        limit: limit + 1,
        ...(parameters.job === undefined ? {} : { job: parameters.job }),
        ...(id === undefined ? {} : { before: { createdAt: String(createdAt), id: String(id) } }),
      });
      const last = runs[limit - 1];
      return {
        data: runs.slice(0, limit),
        next: runs.length > limit && last !== undefined ? toCursor([last.created_at, last.id]) : null,
      };
    },
  );

  app.get('/api/v1/jobs/:id', { schema: { tags: ['operations'], summary: 'One run of a job' } }, async (request) => {
    requirePlatform(await request.authorize('read'));
    const { id } = request.params as { id: string };
    const run = UUID.test(id) ? await jobs.find(id) : undefined;
    if (run === undefined) throw new TidemarkError('not_found', `there is no run ${id}`);
    return run;
  });
};
