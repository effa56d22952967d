import { configureEngine, detectEngine, migrate, NativeEngine, TimescaleEngine } from '../../sinks/index.ts';
import { createTestDatabase } from './postgres.ts';

/** A migrated database on the run's PostgreSQL, of the engine that it has or of the native one. */
export async function createStorage(kind: 'native' | 'timescale') {
  const { pool, url, drop } = await createTestDatabase('template0');
  await migrate(pool, undefined, { hypertables: kind === 'timescale' });
  const engine = await detectEngine(pool);
  if (engine.name !== kind) throw new Error(`the engine is ${engine.name}, not ${kind}`);
  // No policy: its background worker would compress under the tests.
  await configureEngine(pool, engine, 0);
  const lent: { release(): void }[] = [];
  return {
    pool,
    url,
    parallel: true,
    session: async () => {
      const client = await pool.connect();
      lent.push(client);
      return client;
    },
    engine: async (chunkHours = 24) =>
      engine instanceof TimescaleEngine
        ? new TimescaleEngine(engine.extension, { chunkMs: chunkHours * 3_600_000 })
        : new NativeEngine({ chunkMs: chunkHours * 3_600_000 }),
    close: async () => {
      for (const client of lent) client.release();
      await drop();
    },
  };
}
