/**
 * Minute rollups of a day whose raw events are back in the database (see `tiering/recall`): counted anew from these, held
 * against the hours that never left, and answered from again when all of them are there.
 */
import type { ClientBase } from 'pg';
import type { Meter } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import { CardinalityGuard } from '../rollups/cardinality.ts';
import { DAY } from '../rollups/rollups.ts';
import { encodeRollups, newRollupWrites, writeRollups } from '../rollups/write-rows.ts';
import { dateOf } from '../utc-day.ts';
import { makeChunks } from './chunks.ts';
import { compareRows, type Exceptions } from './compare.ts';
import { isHoursOnly } from './count.ts';
import { inParts, Moved } from './parts.ts';
import { FORGET, LOCK_BACKFILL, LOCK_OWNER } from './repair.ts';
import { stateOf } from './shard-state.ts';
import { exceptionsOf, metersOf, recountArchived, type Seen, shardsOf, type VerifyDeps } from './verify.ts';

export interface MinutesDeps extends VerifyDeps {
  /** groups of a tenant beyond which further ones are counted together */
  groupsMax: number;
}

/** What was counted, or who counts it, changed before all minutes were there: how often that may be. */
const MOST_TRIES = 10;

/** Hours know more than raw events say: somebody was erased from these. */
class Unequal extends Error {
  override name = 'Unequal';
}

/**
 * Counts the minutes of a day whose raw events are in the database, a shard a transaction, and says that they are kept.
 * @param day its start, Unix ms
 * @returns whether its minutes are there; not where raw events no longer add up to its hours (an erasure)
 */
export async function bringMinutesBack(deps: MinutesDeps, day: number, signal: AbortSignal): Promise<boolean> {
  const { pool } = deps;
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    signal.throwIfAborted();
    if (!(await isHoursOnly(pool, day))) return true;
    const meters = await metersOf(deps);
    const before = await statesOf(deps, pool, meters, day);
    const exceptions = { ...(await exceptionsOf(pool)), erased: new Set<string>() };
    try {
      await inParts(meters, day, day + DAY, async (some, from, to) => {
        signal.throwIfAborted();
        await countStretch(deps, some, exceptions, from, to);
      });
    } catch (error) {
      if (error instanceof Unequal) return false;
      throw error;
    }
    if (await publish(deps, meters, day, before)) return true;
  }
  throw new Moved(`${dateOf(day)} did not stay as it was for long enough`);
}

async function countStretch(
  deps: MinutesDeps,
  meters: readonly Meter[],
  exceptions: Exceptions,
  from: number,
  to: number,
): Promise<void> {
  const { pool, engine, rowsMax: mostRows } = deps;
  const shards = await shardsOf(pool);
  const seen = await recountArchived(deps, {}, meters, shards, { from, to, mostRows, hoursOnly: false });
  const client = await pool.connect();
  try {
    await makeChunks(client, engine, seen.stretch);
  } finally {
    client.release();
  }
  for (const shard of shards)
    await withTransaction(pool, async (tx) => {
      await tx.query(LOCK_OWNER, [shard]);
      await tx.query(LOCK_BACKFILL, [shard]);
      await seen.recount.readStored(tx, shard);
      const state = await stateOf(deps, tx, shard, meters, from, to);
      if (JSON.stringify(state) !== JSON.stringify(seen.states.get(shard))) throw new Moved('while it was counted');
      await writeMinutes(tx, seen, shard, exceptions, deps.groupsMax);
      await tx.query(FORGET, [shard]);
    });
}

const DELETE = (table: string) =>
  `DELETE FROM ${table} WHERE shard = $1 AND meter_id = $2 AND bucket >= $3 AND bucket < $4`;

async function writeMinutes(
  tx: ClientBase,
  { recount, stretch }: Seen,
  shard: number,
  exceptions: Exceptions,
  groupsMax: number,
): Promise<void> {
  const own = recount.counted.filter(({ share }) => share.shard === shard);
  const guard = new CardinalityGuard(groupsMax);
  const minutes = new Map<(typeof own)[number], (typeof own)[number]['rollups']['touched']>();
  for (const counted of own) {
    const { rollups } = counted;
    // Who was beyond the limit was told when the hours were counted.
    await guard.fold(rollups, tx, async () => undefined);
    minutes.set(
      counted,
      rollups.touched.filter((row) => !row.isHour),
    );
    rollups.touched = rollups.touched.filter((row) => row.isHour);
  }
  const { found } = await compareRows(tx, own, { ...stretch, hoursOnly: true }, exceptions);
  if (found.length > 0) throw new Unequal(JSON.stringify(found[0]?.difference));
  for (const [{ share, rollups }, touched] of minutes) {
    const { rowShard, meter } = share;
    // What came late has some minutes, of its own alone.
    for (const table of ['rollups_minute', 'members_minute'])
      await tx.query(DELETE(table), [rowShard, meter.id, new Date(stretch.from), new Date(stretch.to)]);
    rollups.touched = touched;
    const writes = newRollupWrites();
    encodeRollups(rollups, rowShard, 0, writes);
    await writeRollups(tx, rowShard, writes);
  }
}

/**
 * Minutes that were counted are kept up by their owners from then on; the day has all of them if nobody counted, or
 * withdrew, without minutes meanwhile. Owners start over, since they may be about to.
 */
async function publish(deps: MinutesDeps, meters: readonly Meter[], day: number, before: string): Promise<boolean> {
  return withTransaction(deps.pool, async (tx) => {
    for (const shard of await shardsOf(tx)) {
      await tx.query(LOCK_OWNER, [shard]);
      await tx.query(LOCK_BACKFILL, [shard]);
      await tx.query(FORGET, [shard]);
    }
    const known = await metersOf(deps);
    if (JSON.stringify(known) !== JSON.stringify(meters)) return false;
    if ((await statesOf(deps, tx, meters, day)) !== before) return false;
    await tx.query('DELETE FROM archived_minutes WHERE day = $1', [dateOf(day)]);
    return true;
  });
}

async function statesOf(
  deps: MinutesDeps,
  database: Parameters<typeof stateOf>[1],
  meters: readonly Meter[],
  day: number,
): Promise<string> {
  const states = [];
  for (const shard of await shardsOf(database))
    states.push([shard, await stateOf(deps, database, shard, meters, day, day + DAY)]);
  return JSON.stringify(states);
}
