import type pg from 'pg';
import { withTransaction } from '../connect.ts';
import { NativeEngine } from './native/native-engine.ts';
import type { SqlSession, StorageEngine } from './port.ts';
import { configureColumnstore } from './timescale/columnstore.ts';
import { findExtension } from './timescale/extension.ts';
import { hasHypertables } from './timescale/hypertables.ts';
import { TimescaleEngine } from './timescale/timescale-engine.ts';

export interface EngineOptions {
  /** hours of a chunk of events and minutes; a divisor of 24 */
  chunkHours: number;
}

const CONFIGURE_LOCK = `SELECT FROM tidemark.control_locks WHERE name = 'storage' FOR UPDATE`;

/** The engine of a migrated database: what its time tables are decides, nobody is asked. */
export async function detectEngine(
  pool: SqlSession,
  { chunkHours }: EngineOptions = { chunkHours: 24 },
): Promise<StorageEngine> {
  const chunkMs = chunkHours * 3_600_000;
  const extension = await findExtension(pool);
  if (extension !== undefined && (await hasHypertables(pool))) return new TimescaleEngine(extension, { chunkMs });
  return new NativeEngine({ chunkMs });
}

/**
 * Brings the engine's own configuration (compression and its policy) in line with the settings; at every start of a server.
 * @param afterDays a chunk is compressed when its end is so long past; 0: never
 */
export async function configureEngine(pool: pg.Pool, engine: StorageEngine, afterDays: number): Promise<void> {
  if (!(engine instanceof TimescaleEngine) || engine.extension.licence !== 'timescale') return;
  await withTransaction(pool, async (client) => {
    await client.query(CONFIGURE_LOCK);
    await configureColumnstore(client, engine.extension, afterDays);
  });
}
