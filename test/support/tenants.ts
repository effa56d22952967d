import { randomUUID } from 'node:crypto';
import pg from 'pg';
import pino from 'pino';
import { TIME_TABLES } from '../../schemas/index.ts';
import { detectEngine, type Mailer, withTransaction } from '../../sinks/index.ts';
import {
  openSecretBox,
  Provisioner,
  type ProvisionerDeps,
  prepareDatabase,
  provisioningSteps,
  readTenantMigrations,
  type StepDeps,
  tenantUrl,
} from '../../tenants/index.ts';
import type { TestDatabase } from './postgres.ts';

export const silent = pino({ level: 'silent' });
export const secrets = openSecretBox('test-secret-key-0123456789-0123456789');
const nowhere: Mailer = { name: 'files', send: async () => undefined, close: () => undefined };

/** A control plane on a test database. */
export async function openTestTenancy(
  database: TestDatabase,
  more: Partial<StepDeps> & Partial<Omit<ProvisionerDeps, 'pool'>> = {},
) {
  await prepareDatabase(database.pool);
  const urlOf = (id: string) => tenantUrl({ pool: database.pool, secrets, databaseUrl: database.url }, id);
  const steps = provisioningSteps({
    secrets,
    pools: { open: async (id) => (await loginAs(await urlOf(id))).end(), close: async () => undefined },
    migrations: readTenantMigrations,
    placement: { pick: async () => 'main', move: async () => undefined },
    mailer: nowhere,
    heartbeats: undefined,
    addressOf: () => undefined,
    ...more,
  });
  const provisioner = new Provisioner({
    pool: database.pool,
    steps: more.steps ?? steps,
    atOnce: 4,
    logger: silent,
    retry: { attempts: 2, baseMs: 1 },
    ...more,
  });
  const create = async (slug = `t-${randomUUID()}`, demoData = false) => {
    const begun = await provisioner.begin({ slug, name: slug, demoData });
    const state = await provisioner.wait(begun.provisioningId, 30_000);
    return { id: begun.tenant.id, slug, state };
  };
  return { urlOf, steps, provisioner, create, stop: () => provisioner.stop() };
}

/** A session of a tenant's own role. */
export async function loginAs(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** One raw event and its account of a tenant, as processors write them; the day's chunk is made. */
export async function addUsage(database: TestDatabase, tenantId: string, userId: string): Promise<void> {
  const engine = await detectEngine(database.pool);
  const owner = await database.pool.connect();
  await engine.ensureChunks(owner, TIME_TABLES.events, [Date.UTC(2026, 0, 5)]);
  owner.release();
  await withTransaction(database.pool, async (client) => {
    await client.query(
      `INSERT INTO events ("timestamp", received_at, log_offset, shard, tenant_id, key, keyed_by_source, idempotency_key, type, user_id, data)
       VALUES ('2026-01-05T00:00:00Z', now(), 1, 1, $1, gen_random_uuid(), false, $3, 'api_call', $2, '{"secret": "x"}')`,
      [tenantId, userId, `key-${userId}`],
    );
    await client.query(
      'INSERT INTO accounting (shard, tenant_id, received, accepted, duplicate, dead_lettered) VALUES (1, $1, 1, 1, 0, 0)',
      [tenantId],
    );
  });
}
