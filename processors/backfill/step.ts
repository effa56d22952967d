import type { Pool } from 'pg';
import type { StorageEngine } from '../../sinks/index.ts';
import type { ArchivedEvents } from '../archived-events.ts';
import { makeChunks } from '../recount/chunks.ts';
import { isHoursOnly, leftOutOf, Recount, type Stretch } from '../recount/count.ts';
import { Moved } from '../recount/parts.ts';
import { CardinalityGuard, writeOverflows } from '../rollups/cardinality.ts';
import { HOUR } from '../rollups/rollups.ts';
import { encodeRollups, newRollupWrites, writeRollups } from '../rollups/write-rows.ts';
import { dateOf, startOfDay } from '../utc-day.ts';
import { advance, type Cut, lockCuts, shareOf } from './cut.ts';

export interface StepDeps {
  pool: Pool;
  engine: StorageEngine;
  archive: ArchivedEvents;
  /** groups of a tenant beyond which further ones are counted together */
  groupsMax: number;
  /** rows that one step may have in memory */
  rowsMax: number;
  fault?: ((step: BackfillStep) => void) | undefined;
}

/** Places at which a test may stop the process; `fault` is called with each as it is passed. */
export const BACKFILL_STEPS = ['backfill-archive-read', 'backfill-written', 'backfill-committed'] as const;
export type BackfillStep = (typeof BACKFILL_STEPS)[number];

/**
 * Counts [from, to) of the past of these meters: raw events below their cuts, which no one adds to any more, become
 * rows of the twins, and the marks move behind them, a shard a transaction. The marks' locks keep withdrawals out: they
 * wait, then mend what was written (see `withdraw/`).
 *
 * The archive's part is read first, without a transaction. It is good if, after the database's part was read in one
 * snapshot with the archive's positions, the day's archive still is the same: then no row was in both, none in neither.
 * @param from within one day, at or after the marks; Unix ms
 * @returns events counted, and the cuts that another process has overtaken
 * @throws {Moved} nothing of this shard and the next was counted | {TooMuch} | TidemarkError `archive_frozen`, `archive_damaged`
 */
export async function backfillStretch(
  deps: StepDeps,
  cuts: readonly Cut[],
  from: number,
  to: number,
): Promise<{ events: number; overtaken: Cut[] }> {
  const { pool, archive, engine, rowsMax } = deps;
  const day = startOfDay(from);
  const shards = [...new Set(cuts.map((cut) => cut.shard))];
  const hoursOnly = await isHoursOnly(pool, day);
  const archived = await archive.open(pool, day);
  const divisible = to - from > HOUR || cuts.length > 1;
  const stretch: Stretch = { from, to, hoursOnly, ...(divisible ? { mostRows: rowsMax } : {}) };
  const recount = new Recount(
    cuts.map((cut) => ({ ...shareOf(cut), cut })),
    stretch,
  );
  const leftOut = await leftOutOf(pool, shards, stretch);
  if (archived !== undefined) {
    await recount.readArchived(archived, leftOut);
    deps.fault?.('backfill-archive-read');
  }
  const result = { events: 0, overtaken: [] as Cut[] };
  for (const shard of shards) {
    const client = await pool.connect();
    let broken: Error | undefined;
    try {
      await makeChunks(client, engine, stretch);
      await client.query('BEGIN');
      // A purge changes these rows before it deletes what a tenant has: it deletes what is written here, or is seen.
      await client.query('SELECT FROM log_offsets WHERE shard = ANY ($1) FOR UPDATE', [twinsOf(cuts, shard)]);
      const own = cuts.filter((cut) => cut.shard === shard);
      const held = await lockCuts(client, shard, own);
      result.overtaken.push(...own.filter((cut) => !held.includes(cut)));
      // Minutes can't be dropped any more once this is locked.
      await client.query('LOCK TABLE rollups_minute IN ROW EXCLUSIVE MODE');
      const minutesHaveGone = (await isHoursOnly(client, day)) !== hoursOnly;
      await recount.readStored(client, shard);
      const isSame = (await archive.versionOf(client, day)) === archived?.version;
      const isSettled = (await leftOutOf(client, [shard], stretch)).size === countOf(leftOut, shard);
      if (minutesHaveGone || !isSame || (archived !== undefined && !isSettled))
        throw new Moved(`${dateOf(day)} moved while it was counted`);
      for (const { share, rollups, events } of recount.counted) {
        if (!held.includes(share.cut)) continue;
        // Groups that are counted live already stay apart; who is beyond is told as by the owner.
        const overflows = await new CardinalityGuard(deps.groupsMax).fold(rollups, client, async () => undefined);
        await writeOverflows(client, share.rowShard, overflows);
        const writes = newRollupWrites();
        encodeRollups(rollups, share.rowShard, 0, writes);
        await writeRollups(client, share.rowShard, writes);
        await advance(client, share.cut, to, events);
        result.events += events;
      }
      deps.fault?.('backfill-written');
      await client.query('COMMIT');
      deps.fault?.('backfill-committed');
      for (const cut of held) cut.backfilledUntil = to;
    } catch (error) {
      broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    } finally {
      // A connection with an open transaction is never lent again.
      client.release(broken);
    }
  }
  return result;
}

const twinsOf = (cuts: readonly Cut[], shard: number): number[] => [
  ...new Set(cuts.filter((cut) => cut.shard === shard).map((cut) => cut.twin)),
];

/** Of this shard, and of all. */
const countOf = (leftOut: ReadonlySet<string>, shard: number): number =>
  [...leftOut].filter((name) => name.startsWith(`${shard} `) || !name.includes(' ')).length;
