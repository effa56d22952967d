import type { Pool } from 'pg';
import { TIME_TABLES } from '../../schemas/index.ts';
import { readMeters, type StorageEngine, withTransaction } from '../../sinks/index.ts';
import { foldCoarse } from '../rollups/fold-coarse.ts';
import { TWIN_TOPIC } from './cut.ts';

const STALE = `
  SELECT h.shard, (extract(epoch FROM date_bin('1 day', h.hour, 'epoch')) * 1000)::float8 AS day,
    array_agg((extract(epoch FROM h.hour) * 1000)::float8) AS hours
  FROM stale_hours AS h JOIN log_offsets AS o USING (shard) WHERE o.topic = '${TWIN_TOPIC}' GROUP BY 1, 2 ORDER BY 1, 2`;

/** Makes the coarse rows of what backfills, and withdrawals after them, have written: a day of a twin a transaction. */
export async function foldPast(pool: Pool, engine: StorageEngine, signal: AbortSignal): Promise<void> {
  const { rows } = await pool.query<{ shard: number; day: number; hours: number[] }>(STALE);
  if (rows.length === 0) return;
  const meters = (await readMeters(pool)).flatMap(({ meter, next }) => (next === null ? [meter] : [meter, next]));
  for (const { shard, day, hours } of rows) {
    signal.throwIfAborted();
    const client = await pool.connect();
    try {
      await engine.ensureChunks(client, TIME_TABLES.rollups_coarse, [day]);
    } finally {
      client.release();
    }
    await withTransaction(pool, async (tx) => {
      // Twins have no owner: two runs take turns.
      await tx.query('SELECT FROM log_offsets WHERE shard = $1 FOR UPDATE', [shard]);
      await foldCoarse(tx, shard, { day, hours: new Set(hours), wholeDay: true, again: true }, meters);
    });
  }
}
