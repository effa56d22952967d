import { Gauge, type Registry } from 'prom-client';
import type { TenantPools } from '../tenants/index.ts';

/**
 * Gauges of the tenants' pools.
 * @returns reads them anew, at each scrape
 */
export function poolMetrics(registry: Registry, pools: TenantPools): () => void {
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [registry] });
  const budget = gauge('tidemark_pools_budget_connections', "Connections that all tenants' pools may open");
  const used = gauge('tidemark_pools_used_connections', 'Connections that they have');
  const connections = gauge('tidemark_pool_connections', 'Connections of a tenant', ['tenant_id', 'state']);
  const limit = gauge('tidemark_pool_limit_connections', 'Most connections of a tenant now', ['tenant_id', 'class']);
  const waiting = gauge('tidemark_pool_waiting_requests', 'Requests in the queue of a tenant', ['tenant_id']);
  const borrows = gauge('tidemark_pool_borrows_total', 'Connections lent to a tenant', ['tenant_id']);
  const wait = gauge('tidemark_pool_wait_seconds_total', 'Seconds that a tenant waited for connections', ['tenant_id']);
  const timeouts = gauge('tidemark_pool_timeouts_total', 'Requests of a tenant that waited in vain', ['tenant_id']);
  const perTenant = [connections, limit, waiting, borrows, wait, timeouts];
  return () => {
    // Tenants that the pools have forgotten are no longer said.
    for (const one of perTenant) one.reset();
    const report = pools.report();
    budget.set(report.budget);
    used.set(report.used);
    for (const one of report.tenants) {
      const labels = { tenant_id: one.tenant };
      connections.set({ ...labels, state: 'in_use' }, one.lent);
      connections.set({ ...labels, state: 'idle' }, one.open - one.lent);
      limit.set({ ...labels, class: one.class }, one.limit);
      waiting.set(labels, one.waiting);
      borrows.set(labels, one.borrows);
      wait.set(labels, one.waitMs / 1000);
      timeouts.set(labels, one.timeouts);
    }
  };
}
