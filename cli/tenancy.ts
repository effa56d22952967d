/** The control plane of tenants, from settings. */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Settings } from '../schemas/index.ts';
import { connect, openBetterStack, openMailer } from '../sinks/index.ts';
import {
  openSecretBox,
  openShardDatabases,
  Provisioner,
  poolsForProvisioning,
  prepareDatabase,
  provisioningSteps,
  type Tenancy,
  tenantUrl,
} from '../tenants/index.ts';
import { secretKeyOf } from './data-folder.ts';
import { faultFrom } from './fault.ts';
import { migrationsOf, openPools } from './tenant-pools.ts';

/** Seconds between two heartbeats of a tenant, and how late one may be. */
const HEARTBEAT = { period: 60, grace: 180 };

export async function openTenancy(deps: {
  settings: Settings;
  env: Record<string, string>;
  databaseUrl: string;
  dataFolder: string;
  logger: Logger;
  disposers: (() => Promise<void> | void)[];
}): Promise<Tenancy> {
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
  const fault = faultFrom(deps.env.TIDEMARK_TEST_KILL_AT);
  const provisioner = new Provisioner({
    pool,
    steps: provisioningSteps({
      secrets,
      pools: poolsForProvisioning(pools),
      mailer,
      heartbeats,
      addressOf,
      migrations: migrations.migrations,
    }),
    atOnce: settings.PROVISIONING_AT_ONCE,
    logger,
    ...(fault === undefined ? {} : { fault }),
  });
  if (settings.ROLES.has('query') || settings.ROLES.has('jobs')) provisioner.start();
  disposers.push(() => provisioner.stop());
  return {
    pool,
    secrets,
    provisioner,
    waitMs: settings.PROVISIONING_WAIT_MS,
    urlOf,
    addressOf,
    pools,
    migrations,
    runOptions,
  };
}
