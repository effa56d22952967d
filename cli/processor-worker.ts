/** The processors in a thread of their own: ingest and queries keep the main thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { BUILTIN_METERS } from '../metering/index.ts';
import { runProcessors } from '../processors/index.ts';
import { readSettings } from '../schemas/index.ts';
import { connect, detectEngine, openTenantDirectory } from '../sinks/index.ts';
import { faultFrom } from './fault.ts';
import { openLog } from './log.ts';
import { createLogger } from './logger.ts';

export interface WorkerData {
  env: Record<string, string>;
  databaseUrl: string;
  logDirectory: string;
}

const DAY_MS = 86_400_000;
const port = parentPort;
if (port === null) throw new Error('this file runs as a worker thread');

const { env, databaseUrl, logDirectory }: WorkerData = workerData;
const settings = readSettings(env);
const logger = createLogger(settings.LOG_LEVEL, 'processors');
const pool = connect(databaseUrl, {
  max: settings.LOG_PARTITIONS * 2 + 2,
  name: 'tidemark-processors',
  statementTimeoutMs: settings.DATABASE_SILENCE_MS,
  silenceMs: settings.DATABASE_SILENCE_MS,
  // A frozen owner must not hold the lock on its commit point for longer than it may hold the partition.
  idleInTransactionMs: settings.KAFKA_SESSION_TIMEOUT_MS,
});
const { log, counters } = await openLog(settings, logDirectory, logger);
const fault = faultFrom(env.TIDEMARK_TEST_KILL_AT);
const processors = await runProcessors({
  pool,
  engine: await detectEngine(pool, { chunkHours: settings.CHUNK_HOURS }),
  log,
  directory: openTenantDirectory(pool),
  meters: BUILTIN_METERS,
  logger,
  now: Date.now,
  settings: {
    batchEvents: settings.PROCESSOR_BATCH_EVENTS,
    batchBytes: settings.PROCESSOR_BATCH_BYTES,
    lingerMs: settings.PROCESSOR_LINGER_MS,
    cacheRows: settings.ROLLUP_CACHE_ROWS,
    dedupeMemoryBytes: settings.DEDUPE_MEMORY_MB * 1024 * 1024,
    dedupeSealKeys: settings.DEDUPE_SEAL_KEYS,
    windowMs: settings.IDEMPOTENCY_WINDOW_DAYS * DAY_MS,
    unknownTenants: settings.UNKNOWN_TENANTS,
    meterRefreshMs: settings.METER_REFRESH_MS,
    groupsMax: settings.METER_GROUPS_MAX,
    refoldMs: settings.ROLLUP_REFOLD_SECONDS * 1000,
  },
  ...(fault === undefined ? {} : { fault }),
});

port.on('message', async (message: unknown) => {
  if (message === 'metrics') port.postMessage({ metrics: processors.metrics(), log: counters?.() });
  if (message !== 'stop') return;
  await processors.stop();
  await log.close();
  await pool.end();
  port.postMessage({ stopped: true });
  port.close();
});
port.postMessage({ ready: true });
