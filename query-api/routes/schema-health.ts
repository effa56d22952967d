import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { FINDINGS, listSchemaHealth } from '../../tenants/index.ts';
import { fromCursor, limitOf, listOf, tenantsOf, toCursor } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const NIL = '00000000-0000-0000-0000-000000000000';
const Query = Type.Object({
  tenant: Type.Optional(Type.String({ maxLength: 128 })),
  finding: Type.Optional(Type.Union(FINDINGS.map((one) => Type.Literal(one)))),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String({ maxLength: 512 })),
});

/** How tenants' schemas are, as of the newest look at each. */
export const schemaHealthRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory }) => {
  app.get(
    '/api/v1/health/schemas',
    {
      schema: {
        tags: ['health'],
        summary: "Size, growth, drift and anomalies of tenants' schemas",
        querystring: Query,
      },
    },
    async (request) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, string | undefined>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const tenants = await tenantsOf(principal, directory, listOf(parameters.tenant));
      const after = String(fromCursor(parameters.cursor, ['string'])?.[0] ?? NIL);
      const found = await listSchemaHealth(pool, {
        after: /^[0-9a-f-]{36}$/.test(after) ? after : NIL,
        tenants: tenants?.map((one) => one.id) ?? null,
        finding: parameters.finding ?? null,
        limit: limit + 1,
      });
      const page = found.slice(0, limit);
      return {
        data: page.map((one) => ({
          tenant_id: one.tenantId,
          tenant: one.customerId,
          at: one.at.toISOString(),
          status: one.findings.some((finding) => finding.alert) ? 'alert' : one.findings.length > 0 ? 'note' : 'ok',
          bytes: one.bytes,
          growth_bytes_day: one.growth,
          tables: one.tables,
          slow_queries: one.slowQueries,
          calls_hour: one.events,
          errors_hour: one.errors,
          version: one.version,
          drift: one.drift,
          findings: one.findings,
        })),
        next: found.length > limit ? toCursor([page.at(-1)?.tenantId ?? NIL]) : null,
      };
    },
  );
};
