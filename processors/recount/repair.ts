import type { ClientBase, Pool } from 'pg';
import { uuidOf } from '../../schemas/index.ts';
import { type StorageEngine, withTransaction } from '../../sinks/index.ts';
import { cellKey } from '../rollups/rollups.ts';
import { deleteCells, encodeRollups, newRollupWrites, writeRollups } from '../rollups/write-rows.ts';
import { makeChunks } from './chunks.ts';
import type { Found } from './compare.ts';
import type { Recount, Share, Stretch } from './count.ts';

/** Held by every commit of the shard's owner. */
export const LOCK_OWNER = 'SELECT FROM log_offsets WHERE shard = $1 FOR UPDATE';
/** Held by every step of its backfill. */
export const LOCK_BACKFILL = 'SELECT FROM meter_cuts WHERE shard = $1 ORDER BY meter_id FOR UPDATE';
/** The owner's next commit fails, and it starts over from the database: what it holds in memory is what was wrong. */
export const FORGET = 'UPDATE log_offsets SET generation = generation + 1 WHERE shard = $1';
const AUDIT = `INSERT INTO audit_log (key_id, action, tenants, reason, request_id) VALUES ($1, 'rollups repair', $2, $3, $4)`;
/** Tenants that an audit row names. */
const MOST_TENANTS = 50;

export interface Repair {
  shard: number;
  stretch: Stretch;
  /** who asked for it, and in which run of the job */
  by: string;
  run: string;
}

/**
 * Makes the rows of a shard what was recounted, in one transaction that holds up the shard's owner and its backfill:
 * whatever they commit comes before or after, whole. Cells that differ are replaced, all groups of them, as a withdrawal does.
 * @param compare within the transaction; @throws {Moved} when the recount is of another state
 * @returns how many rows were mended, and how many differ still
 */
export async function repair(
  engine: StorageEngine,
  pool: Pool,
  recount: Recount<Share>,
  { shard, stretch, by, run }: Repair,
  compare: (client: ClientBase) => Promise<{ found: Found[] }>,
): Promise<{ repaired: number; left: number }> {
  const client = await pool.connect();
  try {
    await makeChunks(client, engine, stretch);
  } finally {
    client.release();
  }
  return withTransaction(pool, async (tx) => {
    await tx.query(LOCK_OWNER, [shard]);
    await tx.query(LOCK_BACKFILL, [shard]);
    // Minutes can't be dropped any more once this is locked.
    await tx.query('LOCK TABLE rollups_minute IN ROW EXCLUSIVE MODE');
    // Where groups were folded by the order in which they came, nobody knows their rows any more.
    const all = (await compare(tx)).found;
    const found = all.filter(({ difference }) => difference.group !== null);
    const done = { repaired: found.length, left: all.length - found.length };
    if (found.length === 0) return done;
    for (const { share, rollups } of recount.counted) {
      const cells = new Map(
        found
          .filter((one) => one.share === share)
          .map(({ cell }) => [cellKey(cell.meterId, cell.tenantId, cell.bucket, cell.isHour), cell]),
      );
      if (cells.size === 0) continue;
      await deleteCells(tx, share.rowShard, [...cells.values()]);
      rollups.touched = rollups.touched.filter(({ series, bucket, isHour }) =>
        cells.has(cellKey(series.meter.meter.id, series.tenantId, bucket, isHour)),
      );
      const writes = newRollupWrites();
      encodeRollups(rollups, share.rowShard, 0, writes);
      await writeRollups(tx, share.rowShard, writes);
    }
    await tx.query(FORGET, [shard]);
    const tenants = [...new Set(found.map(({ cell }) => uuidOf(cell.tenantId)))].slice(0, MOST_TENANTS);
    const meters = [...new Set(found.map(({ difference }) => difference.meter))].join(', ');
    const range = `${new Date(stretch.from).toISOString()} to ${new Date(stretch.to).toISOString()}`;
    await tx.query(AUDIT, [
      by,
      tenants,
      `${found.length} rows of ${meters}, ${range}, shard ${shard}`.slice(0, 500),
      run,
    ]);
    return done;
  });
}
