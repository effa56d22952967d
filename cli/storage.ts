import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Settings } from '../schemas/index.ts';
import { configureEngine, detectEngine, migrate, type StorageEngine } from '../sinks/index.ts';

/** Brings the database up to this build, and its storage engine to the settings. */
export async function openStorage(pool: Pool, settings: Settings, logger: Logger): Promise<StorageEngine> {
  const applied = await migrate(pool);
  if (applied.length > 0) logger.info({ versions: applied }, 'migrations applied');
  const engine = await detectEngine(pool, { chunkHours: settings.CHUNK_HOURS });
  await configureEngine(pool, engine, settings.COMPRESS_AFTER_DAYS);
  logger.info({ engine: engine.name }, 'storage is ready');
  return engine;
}
