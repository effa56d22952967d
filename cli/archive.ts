/** Tiering, put together: its own connections, the object store, and a folder for files on their way. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Settings } from '../schemas/index.ts';
import { connect, type StorageEngine } from '../sinks/index.ts';
import type { LifecycleSettings, TieringDeps } from '../tiering/index.ts';
import { faultFrom } from './fault.ts';
import { openObjectStore } from './objects.ts';

export async function openTiering({
  settings,
  databaseUrl,
  engine,
  dataFolder,
  logger,
  disposers,
}: {
  settings: Settings;
  databaseUrl: string;
  engine: StorageEngine;
  dataFolder: string;
  logger: Logger;
  disposers: (() => Promise<void> | void)[];
}): Promise<TieringDeps> {
  const store = await openObjectStore(settings, dataFolder);
  disposers.push(() => store.close());
  const pool = connect(databaseUrl, { max: 4, name: 'tidemark-archive' });
  disposers.push(() => pool.end());
  const scratch = join(dataFolder, 'archive-scratch', String(process.pid));
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  disposers.push(() => rm(scratch, { recursive: true, force: true }));
  const fault = faultFrom(process.env.TIDEMARK_TEST_KILL_AT);
  return {
    pool,
    engine,
    store,
    scratch,
    logger,
    now: Date.now,
    settings: {
      hotDays: settings.ARCHIVE_HOT_DAYS,
      partRows: settings.ARCHIVE_PART_ROWS,
      memoryBytes: settings.ARCHIVE_MEMORY_MB * 1e6,
      threads: settings.ARCHIVE_THREADS,
      dutyPercent: settings.ARCHIVE_DUTY_PERCENT,
      zstdLevel: settings.ARCHIVE_ZSTD_LEVEL,
      cacheBytes: settings.ARCHIVE_CACHE_MB * 1e6,
      leaseMs: 120_000,
      lifecycle: lifecycleOf(settings),
    },
    // Processors have steps of the same names.
    ...(fault === undefined ? {} : { fault: (step) => fault(`archive-${step}`) }),
  };
}

export const lifecycleOf = (settings: Settings): LifecycleSettings => ({
  infrequentDays: settings.ARCHIVE_IA_DAYS,
  glacierDays: settings.ARCHIVE_GLACIER_DAYS,
  expireDays: settings.ARCHIVE_EXPIRE_DAYS,
});
