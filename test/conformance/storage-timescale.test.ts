import { inject } from 'vitest';
import {
  configureColumnstore,
  connect,
  detectEngine,
  findAvailable,
  findExtension,
  isUsable,
  TimescaleEngine,
} from '../../sinks/index.ts';
import { migrateInProcess, openInProcessTimescale } from '../support/pglite.ts';
import { createStorage } from '../support/storage.ts';
import { describeStorageEngine, type EngineUnderTest } from './storage-engine.ts';

async function openInProcess(): Promise<EngineUnderTest> {
  const database = await openInProcessTimescale();
  await migrateInProcess(database);
  const engine = await detectEngine(database);
  if (!(engine instanceof TimescaleEngine)) throw new Error('the tables are no hypertables');
  await configureColumnstore(database, engine.extension, 7);
  return {
    parallel: false,
    session: async () => database,
    engine: (chunkHours = 24) => detectEngine(database, { chunkHours }),
    close: () => database.close(),
  };
}

/** Whether the run's PostgreSQL (DATABASE_URL) has TimescaleDB as well. */
async function serverHasIt(): Promise<boolean> {
  const pool = connect(inject('databaseUrl'), { max: 1, name: 'tidemark-test' });
  try {
    const extension = await findExtension(pool);
    return extension !== undefined ? isUsable(extension) : (await findAvailable(pool)) !== undefined;
  } finally {
    await pool.end();
  }
}

describeStorageEngine('TimescaleDB in process', openInProcess, true);
if (await serverHasIt()) describeStorageEngine('TimescaleDB of DATABASE_URL', () => createStorage('timescale'), true);
