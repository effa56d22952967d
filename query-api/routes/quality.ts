import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import { listOf, tenantsOf } from '../access.ts';
import { isVisible } from '../meters/present.ts';
import type { QueryOptions } from '../options.ts';
import { qualityReport } from '../quality/report.ts';

const HOUR = 3_600_000;
const Parameters = Type.Object({
  subject: Type.Optional(Type.Union([Type.String(), Type.Array(Type.String())])),
  hours: Type.Optional(Type.String({ description: 'how far back events are looked at, 1 to 168; default 24' })),
});

/** How good the data is that comes in. */
export const qualityRoutes: FastifyPluginAsync<QueryOptions> = async (app, options) => {
  const { pool, log, directory, catalogue, now } = options;

  app.get(
    '/api/v1/data-quality',
    {
      schema: {
        tags: ['operations'],
        summary: 'Freshness, lateness, duplicates, dead letters, null rates, unknown types, missing values',
        querystring: Parameters,
      },
    },
    async (request) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const hours = Number(parameters.hours ?? 24);
      if (!Number.isInteger(hours) || hours < 1 || hours > 168)
        throw new TidemarkError('invalid_parameter', 'hours must be from 1 to 168');
      const tenants = await tenantsOf(principal, directory, listOf(parameters.subject));
      const entries = await catalogue.list();
      return qualityReport(pool, log, {
        tenantIds: tenants?.map((tenant) => tenant.id) ?? null,
        meters: entries.map((entry) => entry.meter).filter((meter) => isVisible(meter, principal)),
        now: now(),
        windowMs: hours * HOUR,
      });
    },
  );
};
