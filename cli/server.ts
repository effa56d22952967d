/** The composition root: everything is built here, from settings, and closed in reverse order. */
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { type IngestMetrics, ingestRoutes } from '../ingest/index.ts';
import { BUILTIN_METERS } from '../metering/index.ts';
import { queryRoutes } from '../query-api/index.ts';
import { ratesOf, type Settings } from '../schemas/index.ts';
import {
  connect,
  openKeyStore,
  openMeterCatalogue,
  openTenantDirectory,
  secureUrl,
  startEmbeddedPostgres,
} from '../sinks/index.ts';
import { openAuditTrail } from '../tenants/index.ts';
import { createTieringJobs, openArchiveReader } from '../tiering/index.ts';
import { openTiering } from './archive.ts';
import { auditRequests } from './audit.ts';
import { createBilling } from './billing.ts';
import { createCorrectionPlaces } from './corrections.ts';
import { adminKeyOf, openDataFolder } from './data-folder.ts';
import { healthRoutes } from './health.ts';
import { createHttp } from './http.ts';
import { runJobs } from './jobs.ts';
import { watchLag } from './lag.ts';
import { openLog } from './log.ts';
import { meterJobs, minutesOf } from './meters.ts';
import { createMetrics } from './metrics.ts';
import { openObjectStore } from './objects.ts';
import { startProcessors } from './processor-thread.ts';
import { watchQuality } from './quality-metrics.ts';
import { openStorage } from './storage.ts';
import { openTenancy } from './tenancy.ts';
import { tenantJobs } from './tenant-pools.ts';

export interface RunningServer {
  address: string;
  adminKey: string;
  /** Drains: finishes requests and the batch in hand, then closes everything. */
  close(): Promise<void>;
}

const DAY_MS = 86_400_000;

/**
 * Builds and starts a server.
 * @param env what the settings were read from; worker threads read it again
 * @param onFatal the server can't go on: exit
 */
export async function startServer(
  settings: Settings,
  env: Record<string, string>,
  { logger, onFatal }: { logger: Logger; onFatal(error: Error): void },
): Promise<RunningServer> {
  const disposers: (() => Promise<void> | void)[] = [];
  let stopping = false;
  const close = async () => {
    stopping = true;
    for (let dispose = disposers.pop(); dispose !== undefined; dispose = disposers.pop()) await dispose();
  };
  try {
    const folder = openDataFolder(settings.TIDEMARK_DATA);
    disposers.push(() => folder.release());
    const admin = adminKeyOf(folder.path, settings.TIDEMARK_ADMIN_KEY);
    const databaseUrl =
      settings.DATABASE_URL === undefined
        ? await embeddedDatabase(folder.postgres, disposers, logger)
        : secureUrl(settings.DATABASE_URL, settings.DATABASE_TLS);
    const pool = connect(databaseUrl, {
      max: settings.DATABASE_POOL,
      name: 'tidemark-http',
      statementTimeoutMs: 60_000,
      silenceMs: settings.DATABASE_SILENCE_MS,
    });
    disposers.push(() => pool.end());
    const engine = await openStorage(pool, settings, logger);
    const { log, counters } = await openLog(settings, folder.log, logger);
    disposers.push(() => log.close());
    const directory = openTenantDirectory(pool);
    const catalogue = openMeterCatalogue(pool, BUILTIN_METERS);
    const keys = openKeyStore(pool, { adminKey: admin.key });
    const processors = settings.ROLES.has('processors')
      ? await startProcessors({ env, databaseUrl, logDirectory: folder.log }, onFatal, disposers)
      : undefined;
    const lag = watchLag(pool, log, logger);
    disposers.push(() => lag.stop());

    const { tenancy, jobs: lifecycleJobs } = await openTenancy({
      settings,
      env,
      databaseUrl,
      dataFolder: folder.path,
      objects: await openObjectStore(settings, folder.path),
      log,
      logger,
      disposers,
      forget: () => {
        directory.forget();
        keys.forget();
      },
    });
    const app = await createHttp({
      keys,
      logger,
      isStopping: () => stopping,
      audit: auditRequests(openAuditTrail(pool)),
    });
    const ingest: IngestMetrics = { requests: 0, accepted: 0, rejected: 0 };
    await app.register(healthRoutes, {
      pool,
      log,
      metrics: createMetrics({
        ingest,
        lag,
        processors,
        log: counters,
        pools: tenancy.pools,
        quality: watchQuality({ pool, log, catalogue, now: Date.now }),
      }),
    });
    if (settings.ROLES.has('ingest'))
      await app.register(ingestRoutes, {
        log,
        directory,
        lag: lag.records,
        corrections: createCorrectionPlaces(pool, log),
        now: Date.now,
        metrics: ingest,
        settings: {
          maxAgeMs: settings.IDEMPOTENCY_WINDOW_DAYS * DAY_MS,
          maxAheadMs: settings.MAX_AHEAD_SECONDS * 1000,
          unknownTenants: settings.UNKNOWN_TENANTS,
          rates: ratesOf(settings),
          appendDeadlineMs: settings.APPEND_DEADLINE_MS,
          lagLimit: settings.LAG_LIMIT,
          spread: settings.SPREAD_TENANTS,
        },
      });
    const tiering = await openTiering({ settings, databaseUrl, engine, dataFolder: folder.path, logger, disposers });
    const archive = openArchiveReader(tiering);
    disposers.push(() => archive.close());
    const billing = createBilling({ pool, catalogue, archive, settings });
    const all = [
      ...billing.jobs,
      ...lifecycleJobs,
      ...tenantJobs(tenancy, settings, logger),
      ...meterJobs({ pool, engine, log, archive, settings }),
      ...createTieringJobs({ ...tiering, bringMinutesBack: minutesOf({ pool, engine, archive, settings }) }),
    ];
    const jobs = runJobs(all, {
      pool,
      settings,
      logger,
      disposers,
    });
    if (settings.ROLES.has('query'))
      await app.register(queryRoutes, {
        pool,
        log,
        directory,
        keys,
        catalogue,
        jobs,
        tenancy,
        tiering,
        archive,
        billing: billing.options,
        now: Date.now,
      });
    const address = await listen(app, settings);
    disposers.push(() => app.close());
    return { address, adminKey: admin.key, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function embeddedDatabase(
  directory: string,
  disposers: (() => Promise<void> | void)[],
  logger: Logger,
): Promise<string> {
  const postgres = await startEmbeddedPostgres(directory);
  disposers.push(() => postgres.stop());
  logger.info({ pid: postgres.pid, attached: postgres.attached }, 'embedded PostgreSQL is up');
  return postgres.url;
}

async function listen(app: FastifyInstance, settings: Settings): Promise<string> {
  await app.listen({ port: settings.PORT, host: settings.HOST });
  const address = app.server.address();
  const port = typeof address === 'object' && address !== null ? address.port : settings.PORT;
  return `http://${settings.HOST.includes(':') ? `[${settings.HOST}]` : settings.HOST}:${port}`;
}
