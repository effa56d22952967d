import pg from 'pg';
import { wayTo } from '../sinks/index.ts';
import type { TenantPoolPort } from './provisioning/steps/pool.ts';

/** Where no pools are kept: proves with one connection that the tenant's role can log in and sees its own schema. */
export function checkingLogin(urlOf: (tenantId: string) => Promise<string>): TenantPoolPort {
  return {
    open: async (tenantId) => {
      const client = new pg.Client({ ...wayTo(await urlOf(tenantId)), connectionTimeoutMillis: 5_000 });
      client.on('error', () => undefined);
      try {
        await client.connect();
        await client.query('SELECT FROM usage_accounting LIMIT 1');
      } finally {
        await client.end();
      }
    },
    close: async () => undefined,
  };
}
