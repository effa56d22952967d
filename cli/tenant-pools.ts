/** Connections of tenants and migrations of their schemas, from settings. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { BUILTIN_METERS } from '../metering/index.ts';
import { type Job, type Settings, TidemarkError } from '../schemas/index.ts';
import { connect, migrate, secureUrl } from '../sinks/index.ts';
import {
  addShard,
  createHealthJob,
  createMigrationJob,
  createMoveJob,
  fitBudget,
  type MigrationDeps,
  type NewShard,
  openTenantPools,
  prepareDatabase,
  type RunOptions,
  readTenantMigrations,
  type SecretBox,
  type ShardDatabases,
  type Tenancy,
  type TenantPools,
} from '../tenants/index.ts';

/** A migration run whose process is silent for so long is taken from it. */
const LEASE_SECONDS = 15;

/** Most connections that this process opens beside the tenants' pools: HTTP, control plane, schemas, processors, archive. */
const ownConnections = (settings: Settings): number =>
  settings.DATABASE_POOL +
  settings.PROVISIONING_AT_ONCE +
  2 +
  settings.MIGRATION_PARALLEL +
  1 +
  settings.LOG_PARTITIONS * 2 +
  2 +
  4;

/** @param urlOf connection URL of a tenant's own role */
export async function openPools(deps: {
  pool: Pool;
  settings: Settings;
  urlOf(tenantId: string): Promise<string>;
  logger: Logger;
  disposers: (() => Promise<void> | void)[];
}): Promise<TenantPools> {
  const { pool, settings, urlOf, logger, disposers } = deps;
  const replica = settings.TENANT_REPLICA_URL;
  const pools = openTenantPools({
    settings: {
      budget: await fitBudget(pool, {
        connections: settings.TENANT_CONNECTIONS,
        administration: settings.TENANT_CONNECTIONS_ADMIN,
        own: ownConnections(settings),
      }),
      sizes: { hot: settings.TENANT_POOL_HOT, warm: settings.TENANT_POOL_WARM, cold: settings.TENANT_POOL_COLD },
      waitMs: settings.TENANT_POOL_WAIT_MS,
      queue: settings.TENANT_POOL_QUEUE,
      idleMs: settings.TENANT_POOL_IDLE_MS,
      alertAt: settings.TENANT_POOL_ALERT_PERCENT / 100,
    },
    urlOf,
    replicaUrlOf: replica === undefined ? undefined : async (tenantId) => withUser(replica, await urlOf(tenantId)),
    onAlert: ({ on, used, budget }) =>
      on
        ? logger.warn({ used, budget }, 'the connections of tenants are nearly used up')
        : logger.info({ used, budget }, 'connections of tenants are free again'),
    now: Date.now,
  });
  disposers.push(() => pools.end());
  return pools;
}

/** The address of one URL with the user of another. */
function withUser(address: string, user: string): string {
  const url = new URL(address);
  const { username, password } = new URL(user);
  url.username = username;
  url.password = password;
  return url.toString();
}

export function migrationsOf(deps: { pool: Pool; shards: ShardDatabases; pools: TenantPools; settings: Settings }): {
  migrations: MigrationDeps;
  runOptions: RunOptions;
} {
  const { pool, shards, pools, settings } = deps;
  return {
    migrations: {
      pool,
      databaseOf: shards.databaseOf,
      databases: shards.databases,
      useTenant: pools.use,
      migrations: () => readTenantMigrations(settings.TENANT_MIGRATIONS),
      delay: (ms) => delay(ms),
      leaseSeconds: LEASE_SECONDS,
    },
    runOptions: {
      parallel: settings.MIGRATION_PARALLEL,
      firstWave: settings.MIGRATION_FIRST_WAVE,
      lockMs: settings.MIGRATION_LOCK_MS,
      statementMs: settings.MIGRATION_STATEMENT_MS,
      onFailure: 'abort',
      breaker: settings.MIGRATION_BREAKER,
    },
  };
}

/** Makes a database ready for tenants, and a shard of it. @throws TidemarkError `invalid_parameter` when it can't be reached */
export async function prepareShard(
  deps: { pool: Pool; secrets: SecretBox; tls: Settings['DATABASE_TLS'] },
  shard: NewShard,
): Promise<void> {
  const databaseUrl = secureUrl(shard.databaseUrl, deps.tls);
  const database = connect(databaseUrl, { max: 1, name: 'tidemark-shard' });
  try {
    await migrate(database);
    await prepareDatabase(database);
  } catch (cause) {
    throw new TidemarkError('invalid_parameter', 'the database of the shard can not be prepared', { cause });
  } finally {
    await database.end();
  }
  await addShard(deps.pool, deps.secrets, { ...shard, databaseUrl });
}

/** Jobs of the control plane. @throws Error when a built-in meter is missing */
export function tenantJobs(tenancy: Tenancy, settings: Settings, logger: Logger): Job[] {
  const idOf = (slug: string): number => {
    const meter = BUILTIN_METERS.find((one) => one.slug === slug);
    if (meter === undefined) throw new Error(`there is no built-in meter ${slug}`);
    return meter.id;
  };
  const health = createHealthJob({
    migrations: tenancy.migrations,
    limits: { storageBytes: settings.SCHEMA_STORAGE_ALERT_GB * 2 ** 30, inactiveDays: settings.TENANT_INACTIVE_DAYS },
    parallel: settings.MIGRATION_PARALLEL,
    slowSeconds: settings.SCHEMA_SLOW_SECONDS,
    keepHours: settings.MIGRATION_KEEP_HOURS,
    meters: { calls: idOf('api_calls'), errors: idOf('errors') },
    onFinding: (tenantId, finding) =>
      finding.alert
        ? logger.warn({ tenant_id: tenantId, ...finding }, 'a tenant’s schema needs a look')
        : logger.info({ tenant_id: tenantId, ...finding }, 'a note on a tenant’s schema'),
    now: Date.now,
  });
  return [createMigrationJob(tenancy.migrations), createMoveJob(tenancy.moves), health];
}
