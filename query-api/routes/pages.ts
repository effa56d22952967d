import type { FastifyPluginAsync, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { openSnapshot, type Snapshot } from '../meters/snapshot.ts';
import type { QueryOptions } from '../options.ts';
import { type PageScope, scopeOf } from '../pages/ask.ts';
import { performancePage } from '../pages/performance.ts';
import { usagePage } from '../pages/usage.ts';

const Strings = Type.Union([Type.String(), Type.Array(Type.String())]);
const Scope = Type.Object({
  tenant: Type.Optional(Strings),
  subject: Type.Optional(Strings),
  from: Type.Optional(Type.String({ description: 'ISO 8601, whole minute; default: 30 days up to today' })),
  to: Type.Optional(Type.String({ description: 'ISO 8601, whole minute, exclusive; default: now' })),
  windowSize: Type.Optional(Type.String({ description: 'HOUR, DAY or MONTH; default: DAY beyond three days' })),
  windowTimeZone: Type.Optional(Type.String({ description: 'IANA time zone; default UTC' })),
});

/** A dashboard's page in one call each; a tenant's key sees its own. */
export const pageRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory, now }) => {
  const answer = async (request: FastifyRequest, page: (snapshot: Snapshot, scope: PageScope) => Promise<unknown>) => {
    const principal = await request.authorize('read');
    const scope = await scopeOf(request.query as Record<string, unknown>, principal, directory, now());
    const snapshot = await openSnapshot(pool);
    try {
      return await page(snapshot, scope);
    } finally {
      await snapshot.close();
    }
  };

  app.get(
    '/api/v1/usage',
    { schema: { tags: ['pages'], summary: 'Usage: totals, series, and lists by every dimension', querystring: Scope } },
    (request) => answer(request, usagePage),
  );
  app.get(
    '/api/v1/performance',
    { schema: { tags: ['pages'], summary: 'Performance: latency percentiles and errors', querystring: Scope } },
    (request) => answer(request, performancePage),
  );
};
