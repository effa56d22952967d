import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import { connect, withTransaction } from '../../sinks/index.ts';
import {
  applyTenantMigrations,
  createTenantSchema,
  loginRoleOf,
  type MigrationDeps,
  openTenantPools,
  prepareDatabase,
  ROLE_LIMITS,
  type RunOptions,
  readTenantMigrations,
  schemaOf,
  type TenantMigration,
  type TenantPools,
} from '../../tenants/index.ts';

/** Of every tenant of a test. */
const PASSWORD = 'fleet';

export const RUN_OPTIONS: RunOptions = {
  parallel: 4,
  firstWave: 5,
  lockMs: 2_000,
  statementMs: 20_000,
  onFailure: 'abort',
  breaker: 3,
};

/** Provisioned tenants, without what else provisioning does. */
export async function createTenants(pool: Pool, count: number): Promise<string[]> {
  await prepareDatabase(pool);
  const ids: string[] = [];
  for (let i = 0; i < count; i++) ids.push(await createOne(pool, i));
  return ids;
}

async function createOne(pool: Pool, i: number): Promise<string> {
  const id = randomUUID();
  await withTransaction(pool, async (client) => {
    await client.query(
      `INSERT INTO tenants (id, customer_id, slug, name, tier, status, created_at) VALUES ($1, $2, $2, $2, 'standard', 'ready', now() + make_interval(secs => $3))`,
      [id, `fleet-${id}`, i],
    );
    await client.query('INSERT INTO tenant_schemas (tenant_id, schema, secret) VALUES ($1, $2, $3)', [
      id,
      schemaOf(id),
      Buffer.from('unused'),
    ]);
    await createTenantSchema(client, id, { password: PASSWORD, limits: ROLE_LIMITS.standard });
    await applyTenantMigrations(client, schemaOf(id));
    await client.query(
      `INSERT INTO ${schemaOf(id)}.agents (name, agent_type) SELECT 'agent ' || i, 'chat' FROM generate_series(1, 3) AS i`,
    );
    await client.query(
      `INSERT INTO ${schemaOf(id)}.tasks (agent_id, title) SELECT id, 'task of ' || name FROM ${schemaOf(id)}.agents`,
    );
  });
  return id;
}

/** URL of a tenant's own role. */
export function fleetUrl(databaseUrl: string, tenantId: string): string {
  const url = new URL(databaseUrl);
  url.username = loginRoleOf(tenantId);
  url.password = PASSWORD;
  return url.toString();
}

export interface Fleet {
  deps: MigrationDeps;
  pools: TenantPools;
  close(): Promise<void>;
}

/** What migrations need of a database, with `extra` after the platform's own. */
export function openFleet(
  databaseUrl: string,
  extra: readonly TenantMigration[],
  more: Partial<MigrationDeps> = {},
): Fleet {
  const control = connect(databaseUrl, { max: 4, name: 'tidemark-test-control' });
  const admin = connect(databaseUrl, { max: 5, name: 'tidemark-test-admin' });
  const pools = openTenantPools({
    settings: {
      budget: 12,
      sizes: { hot: 5, warm: 2, cold: 1 },
      waitMs: 20_000,
      queue: 100,
      idleMs: 60_000,
      alertAt: 0.8,
    },
    urlOf: async (tenantId) => fleetUrl(databaseUrl, tenantId),
    onAlert: () => undefined,
    now: Date.now,
  });
  return {
    deps: {
      pool: control,
      databaseOf: async () => admin,
      databases: async () => [admin],
      useTenant: pools.use,
      migrations: () => [...readTenantMigrations(), ...extra],
      delay: (ms) => delay(Math.min(ms, 10)),
      leaseSeconds: 1,
      ...more,
    },
    pools,
    close: async () => {
      await pools.end(0);
      await admin.end();
      await control.end();
    },
  };
}
