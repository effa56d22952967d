/** The control plane of tenants, from settings. */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Job, Settings } from '../schemas/index.ts';
import { connect, type EventLog, type ObjectStore, openBetterStack, openMailer } from '../sinks/index.ts';
import {
  createArchivalJobs,
  createBackupJobs,
  createHeartbeatJob,
  createPurgeJob,
  type MoveDeps,
  moveTenant,
  openSecretBox,
  openShardDatabases,
  Provisioner,
  pickShard,
  poolsForProvisioning,
  prepareDatabase,
  provisioningSteps,
  startWatchdog,
  type Tenancy,
  tenantUrl,
} from '../tenants/index.ts';
import { secretKeyOf } from './data-folder.ts';
import { faultFrom } from './fault.ts';
import { replayInto } from './replay.ts';
import { migrationsOf, openPools, prepareShard } from './tenant-pools.ts';

/** Seconds between two heartbeats of a tenant, and how late one may be. */
const HEARTBEAT = { period: 60, grace: 180 };

/** How often runaway sessions of tenants are looked for. */
const WATCHDOG_MS = 5_000;

export async function openTenancy(deps: {
  settings: Settings;
  env: Record<string, string>;
  databaseUrl: string;
  dataFolder: string;
  logger: Logger;
  disposers: (() => Promise<void> | void)[];
  /** where archives and backups are */
  objects: ObjectStore;
  /** restored events are sent again to it */
  log: EventLog;
  /** forgets what this process caches of tenants and keys */
  forget(): void;
}): Promise<{ tenancy: Tenancy; jobs: Job[] }> {
  const { settings, databaseUrl, dataFolder, logger, disposers } = deps;
  const pool = connect(databaseUrl, { max: settings.PROVISIONING_AT_ONCE + 2, name: 'tidemark-control' });
  disposers.push(() => pool.end());
  const { stillOpen } = await prepareDatabase(pool);
  if (stillOpen.length > 0)
    logger.info({ functions: stillOpen }, 'no superuser: these functions stay open to tenants (docs/isolation.md)');
  const secrets = openSecretBox(secretKeyOf(dataFolder, settings.TIDEMARK_SECRET_KEY));
  const shards = openShardDatabases({
    pool,
    secrets,
    main: databaseUrl,
    open: (url) => connect(url, { max: settings.MIGRATION_PARALLEL + 1, name: 'tidemark-tenants' }),
  });
  disposers.push(() => shards.close());
  const urlOf = async (tenantId: string) =>
    tenantUrl({ pool, secrets, databaseUrl: await shards.urlOf(await shards.shardOf(tenantId)) }, tenantId);
  const pools = await openPools({ pool, settings, urlOf, logger, disposers });
  const addressOf = (slug: string) =>
    settings.TENANT_DOMAIN === '' ? undefined : `https://${slug}.${settings.TENANT_DOMAIN}`;
  const connections = poolsForProvisioning(pools);
  const mailer = openMailer(
    settings.SMTP_URL === undefined ? { folder: join(dataFolder, 'mail') } : { smtpUrl: settings.SMTP_URL },
    settings.MAIL_FROM,
  );
  disposers.push(() => mailer.close());
  const heartbeats =
    settings.BETTERSTACK_TOKEN === undefined
      ? undefined
      : {
          service: openBetterStack({ base: settings.BETTERSTACK_URL, token: settings.BETTERSTACK_TOKEN }),
          ...HEARTBEAT,
        };
  const { migrations, runOptions } = migrationsOf({ pool, shards, pools, settings });
  const moves: MoveDeps = { pool, shards, pools, migrations, urlOf };
  const fault = faultFrom(deps.env.TIDEMARK_TEST_KILL_AT);
  const provisioner = new Provisioner({
    pool,
    steps: provisioningSteps({
      secrets,
      pools: connections,
      mailer,
      heartbeats,
      addressOf,
      migrations: migrations.migrations,
      placement: { pick: () => pickShard(pool), move: (tenantId, shard) => moveTenant(moves, tenantId, shard) },
    }),
    atOnce: settings.PROVISIONING_AT_ONCE,
    logger,
    ...(fault === undefined ? {} : { fault }),
  });
  if (settings.ROLES.has('query') || settings.ROLES.has('jobs'))
    provisioner.start({ alone: settings.DATABASE_URL === undefined });
  disposers.push(() => provisioner.stop());
  const watchdog = settings.ROLES.has('jobs') ? startWatchdog({ pool, logger }, WATCHDOG_MS) : undefined;
  disposers.push(() => watchdog?.stop());
  const closePool = (tenantId: string) => connections.close(tenantId);
  const tenancy: Tenancy = {
    pool,
    secrets,
    objects: deps.objects,
    provisioner,
    waitMs: settings.PROVISIONING_WAIT_MS,
    deleteDays: settings.TENANT_DELETE_DAYS,
    urlOf,
    addressOf,
    closePool,
    pools,
    shards,
    addShard: (shard) => prepareShard({ pool, secrets, tls: settings.DATABASE_TLS }, shard),
    moves,
    migrations,
    runOptions,
  };
  const jobs = [
    ...createBackupJobs({
      pool,
      objects: deps.objects,
      migrations: migrations.migrations,
      replay: replayInto(deps.log, settings),
      closePool,
      fault,
    }),
    ...createArchivalJobs({
      pool,
      objects: deps.objects,
      secrets,
      heartbeats,
      migrations: migrations.migrations,
      closePool,
      forget: deps.forget,
      fault,
    }),
    createPurgeJob({
      pool,
      objects: deps.objects,
      heartbeats: heartbeats?.service,
      closePool,
      forget: deps.forget,
      ...(fault === undefined ? {} : { fault }),
    }),
    ...(heartbeats === undefined
      ? []
      : [createHeartbeatJob({ pool, secrets, service: heartbeats.service, check: connections.open, logger })]),
  ];
  return { tenancy, jobs };
}
