import type { FastifyPluginAsync } from 'fastify';
import { requirePlatform } from '../access.ts';
import type { QueryOptions } from '../options.ts';

/** The pools of this process: who has how many connections, and who waits. */
export const poolRoutes: FastifyPluginAsync<QueryOptions> = async (app, { tenancy }) => {
  app.get(
    '/api/v1/pools',
    { schema: { tags: ['tenants'], summary: 'Connections of tenants: use, queue and wait, in this process' } },
    async (request) => {
      const principal = await request.authorize('read');
      requirePlatform(principal);
      const { budget, used, alert, tenants } = tenancy.pools.report();
      return {
        budget,
        used,
        alert,
        data: tenants.map((one) => ({
          tenant_id: one.tenant,
          class: one.class,
          limit: one.limit,
          open: one.open,
          in_use: one.lent,
          waiting: one.waiting,
          demand: Math.round(one.demand * 1000) / 1000,
          borrows: one.borrows,
          replica_borrows: one.replicaBorrows,
          timeouts: one.timeouts,
          mean_wait_ms: one.borrows === 0 ? 0 : Math.round((one.waitMs / one.borrows) * 10) / 10,
          longest_wait_ms: one.longestWaitMs,
        })),
        next: null,
      };
    },
  );
};
