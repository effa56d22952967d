import type { Pool } from 'pg';
import { TIME_TABLES } from '../../schemas/index.ts';
import type { StorageEngine } from '../../sinks/index.ts';

/** By then every owner has seen that the version is counted no more. */
const SETTLED = `interval '10 minutes'`;

/** Removes what retired versions have counted, a chunk a statement. @returns how many versions are gone */
export async function removeRetired(pool: Pool, engine: StorageEngine, signal: AbortSignal): Promise<number> {
  const { rows } = await pool.query<{ id: number; settled: boolean }>(
    `SELECT id, coalesce(retired_at, created_at) < now() - ${SETTLED} AS settled FROM meter_versions WHERE state = 'retired'`,
  );
  let removed = 0;
  for (const { id, settled } of rows) {
    // Until then owners may still write rows of it: nobody reads them.
    if (!settled) continue;
    for (const table of [
      TIME_TABLES.rollups_minute,
      TIME_TABLES.rollups_hour,
      TIME_TABLES.rollups_coarse,
      TIME_TABLES.members_minute,
      TIME_TABLES.members_hour,
    ])
      for (const chunk of await engine.listChunks(pool, table)) {
        signal.throwIfAborted();
        await pool.query(`DELETE FROM ${table.table} WHERE meter_id = $1 AND bucket >= $2 AND bucket < $3`, [
          id,
          new Date(chunk.from),
          new Date(chunk.to),
        ]);
      }
    await pool.query('DELETE FROM rollup_groups WHERE meter_id = $1', [id]);
    await pool.query('DELETE FROM meter_cuts WHERE meter_id = $1', [id]);
    await pool.query('DELETE FROM meter_gaps WHERE meter_id = $1', [id]);
    await pool.query('DELETE FROM meter_overflows WHERE meter_id = $1', [id]);
    await pool.query(`UPDATE meter_versions SET state = 'removed' WHERE id = $1`, [id]);
    removed++;
  }
  return removed;
}
