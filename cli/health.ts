import type { FastifyPluginAsync } from 'fastify';
import type { Pool } from 'pg';
import { TidemarkError } from '../schemas/index.ts';
import { type EventLog, isMigrated } from '../sinks/index.ts';
import type { Metrics } from './metrics.ts';

/** /healthz (alive), /readyz (log and database reachable, migrations current), /metrics. */
export const healthRoutes: FastifyPluginAsync<{ pool: Pool; log: EventLog; metrics: Metrics }> = async (
  app,
  { pool, log, metrics },
) => {
  app.get('/healthz', { schema: { tags: ['health'], summary: 'Liveness', security: [] } }, async () => ({
    status: 'ok',
  }));

  app.get(
    '/readyz',
    { schema: { tags: ['health'], summary: 'Readiness: log, database, migrations', security: [] } },
    async () => {
      try {
        await log.ranges();
      } catch (cause) {
        throw new TidemarkError('log_unavailable', 'the event log does not answer', {
          headers: { 'retry-after': '1' },
          cause,
        });
      }
      let migrated = false;
      try {
        migrated = await isMigrated(pool);
      } catch (cause) {
        throw new TidemarkError('database_unavailable', 'the database does not answer', {
          headers: { 'retry-after': '1' },
          cause,
        });
      }
      if (!migrated)
        throw new TidemarkError('database_unavailable', 'migrations are missing', { headers: { 'retry-after': '1' } });
      return { status: 'ready' };
    },
  );

  app.get(
    '/metrics',
    { schema: { tags: ['health'], summary: 'Prometheus metrics; a platform key with scope read' } },
    async (request, reply) => {
      const principal = await request.authorize('read');
      if (principal.tenant !== null) throw new TidemarkError('forbidden', 'metrics need a platform key');
      return reply.type(metrics.contentType).send(await metrics.metrics());
    },
  );
};
