import type { ClientBase, Pool } from 'pg';
import { type Meter, TidemarkError } from '../../schemas/index.ts';
import { readMeters, type StorageEngine, withTransaction } from '../../sinks/index.ts';
import type { ArchivedEvents } from '../archived-events.ts';
import { DAY, HOUR } from '../rollups/rollups.ts';
import { dateOf, startOfDay } from '../utc-day.ts';
import { compareRows, type Difference, type Exceptions, type Found } from './compare.ts';
import { isHoursOnly, Recount, type Share, type Stretch } from './count.ts';
import { inParts, Moved } from './parts.ts';
import { repair } from './repair.ts';
import { type ShardState, stateOf } from './shard-state.ts';

export interface VerifyDeps {
  pool: Pool;
  engine: StorageEngine;
  archive: ArchivedEvents;
  /** built in */
  meters: readonly Meter[];
  /** rollup rows that may be in memory */
  rowsMax: number;
}

export interface VerifyRequest {
  /** starts of the first day and of the one after the last, Unix ms */
  from: number;
  to: number;
  /** slug; absent: all */
  meter?: string | undefined;
  /** UUID; absent: all */
  tenantId?: string | undefined;
  /** makes stored rows what was recounted; the audit row says who and in which run */
  repair?: { by: string; run: string } | undefined;
}

export interface VerifyResult {
  identical: boolean;
  days: number;
  /** stored rows that were compared */
  rows: number;
  /** how many rows differed */
  different: number;
  /** of these, how many were made equal; the owner's next commit may have done it before */
  repaired: number;
  /** the first of them */
  differences: Difference[];
  /** days that could not be recounted, and why */
  left: Record<string, string>;
  /** tenants whose raw events were erased: rollups keep what they counted */
  erased: string[];
}

/** Differences that a report names. */
const MOST_NAMED = 100;

/**
 * Counts whole days (UTC) anew from raw events, in the database or the archive, and holds every stored rollup row of them
 * against that, a day after the other. Each shard is compared in one snapshot, so traffic makes no difference.
 * @throws TidemarkError `unknown_meter`
 */
export async function verifyRollups(
  deps: VerifyDeps,
  request: VerifyRequest,
  run: { signal: AbortSignal; progress(state: Record<string, unknown>): Promise<void> },
): Promise<VerifyResult> {
  const { pool } = deps;
  const meters = await metersOf(deps, request.meter);
  const exceptions = await exceptionsOf(pool);
  const result: VerifyResult = {
    identical: true,
    days: 0,
    rows: 0,
    different: 0,
    repaired: 0,
    differences: [],
    left: {},
    erased: [...exceptions.erased].filter((id) => request.tenantId === undefined || request.tenantId === id),
  };
  for (let day = request.from; day < request.to; day += DAY) {
    run.signal.throwIfAborted();
    try {
      if (!(await hasEvents(deps, day))) {
        if (await hasRollups(pool, day)) result.left[dateOf(day)] = 'no_raw_events';
        continue;
      }
      await inParts(meters, day, day + DAY, async (some, from, to) => {
        run.signal.throwIfAborted();
        const found = await verifyStretch(deps, request, some, exceptions, from, to);
        result.rows += found.rows;
        result.different += found.found.length;
        result.repaired += found.repaired;
        if (found.unmended > 0) result.identical = false;
        result.differences.push(
          ...found.found.slice(0, MOST_NAMED - result.differences.length).map(({ difference }) => difference),
        );
      });
      result.days++;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      result.left[dateOf(day)] = error.code;
    }
    const { rows, different, repaired, left } = result;
    await run.progress({ until: dateOf(day + DAY), rows, different, repaired, left });
  }
  result.identical &&= Object.keys(result.left).length === 0;
  return result;
}

/** Built-in and defined meters, each version that is counted. @throws TidemarkError `unknown_meter` */
export async function metersOf({ pool, meters }: Pick<VerifyDeps, 'pool' | 'meters'>, slug?: string): Promise<Meter[]> {
  const defined = await readMeters(pool);
  const all = [...meters, ...defined.flatMap(({ meter, next }) => (next === null ? [meter] : [meter, next]))];
  const wanted = all.filter((meter) => slug === undefined || meter.slug === slug);
  if (wanted.length === 0) throw new TidemarkError('unknown_meter', `there is no meter ${slug}`);
  return wanted;
}

export async function exceptionsOf(pool: Pool): Promise<Exceptions> {
  const { rows: folded } = await pool.query<{ pair: string }>(
    `SELECT DISTINCT meter_id || ' ' || tenant_id AS pair FROM meter_overflows`,
  );
  const { rows: erased } = await pool.query<{ id: string }>('SELECT DISTINCT tenant_id AS id FROM erasures');
  return { folded: new Set(folded.map((row) => row.pair)), erased: new Set(erased.map((row) => row.id)) };
}

async function hasEvents({ pool, archive }: VerifyDeps, day: number): Promise<boolean> {
  if ((await archive.versionOf(pool, day)) !== undefined) return true;
  const { rows } = await pool.query('SELECT FROM events WHERE "timestamp" >= $1 AND "timestamp" < $2 LIMIT 1', [
    new Date(day),
    new Date(day + DAY),
  ]);
  // It may have been archived in between.
  return rows.length > 0 || (await archive.versionOf(pool, day)) !== undefined;
}

async function hasRollups(pool: Pool, day: number): Promise<boolean> {
  const { rows } = await pool.query('SELECT FROM rollups_hour WHERE bucket >= $1 AND bucket < $2 LIMIT 1', [
    new Date(day),
    new Date(day + DAY),
  ]);
  return rows.length > 0;
}

const LOCK_TABLES =
  'LOCK TABLE events, rollups_minute, rollups_hour, members_minute, members_hour IN ACCESS SHARE MODE';
/** Shards that events come to, ascending. */
export async function shardsOf(database: Pool | ClientBase): Promise<number[]> {
  const { rows } = await database.query<{ shard: number }>(
    `SELECT shard FROM log_offsets WHERE topic <> 'backfill' ORDER BY shard`,
  );
  return rows.map((row) => row.shard);
}

/** Compares a stretch; what differs is repaired where that is asked for, a shard a transaction. */
async function verifyStretch(
  deps: VerifyDeps,
  request: VerifyRequest,
  meters: readonly Meter[],
  exceptions: Exceptions,
  from: number,
  to: number,
): Promise<{ rows: number; found: Found[]; repaired: number; unmended: number }> {
  const { pool } = deps;
  const all = await shardsOf(pool);
  const seen = await recountArchived(deps, request, meters, all, { from, to, mostRows: deps.rowsMax });
  const total = { rows: 0, found: [] as Found[], repaired: 0, unmended: 0 };
  const broken = new Set<number>();
  for (const shard of all) {
    const { rows, found } = await withTransaction(pool, async (client) => {
      await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
      // Before the snapshot is taken: what it shows must not be detached afterwards.
      await client.query(LOCK_TABLES);
      return compareShard(deps, client, seen, shard, exceptions);
    });
    total.rows += rows;
    total.found.push(...found);
    if (found.length > 0) broken.add(shard);
  }
  const mend = request.repair;
  if (mend === undefined) return { ...total, unmended: total.found.length };
  // Only now: what is committed must not be done again because another shard was too much for the memory.
  for (const shard of broken)
    await inParts([shard], from, to, async () => {
      const again = await recountArchived(deps, request, meters, [shard], { from, to });
      const compare = (client: ClientBase) => compareShard(deps, client, again, shard, exceptions);
      const mended = await repair(
        deps.engine,
        pool,
        again.recount,
        { shard, stretch: again.stretch, ...mend },
        compare,
      );
      total.repaired += mended.repaired;
      total.unmended += mended.left;
    });
  return total;
}

export interface Seen {
  recount: Recount<Share>;
  stretch: Stretch;
  states: ReadonlyMap<number, ShardState>;
  meters: readonly Meter[];
}

/**
 * Recounts what is in the archive: good as long as the shard's state is the same when the rest is read.
 * @param range `hoursOnly`: whether minutes are counted; absent: where they are kept
 */
export async function recountArchived(
  deps: Pick<VerifyDeps, 'pool' | 'archive' | 'meters'>,
  { tenantId }: Pick<VerifyRequest, 'tenantId'>,
  meters: readonly Meter[],
  shards: readonly number[],
  { from, to, mostRows, hoursOnly }: { from: number; to: number; mostRows?: number; hoursOnly?: boolean },
): Promise<Seen> {
  const { pool, archive } = deps;
  const day = startOfDay(from);
  const archived = await archive.open(pool, day);
  const states = new Map<number, ShardState>();
  for (const shard of shards) states.set(shard, await stateOf(deps, pool, shard, meters, from, to));
  const byId = new Map(meters.map((meter) => [meter.id, meter]));
  const shares = [...states.values()].flatMap((state) =>
    state.shares.flatMap((share) => {
      const meter = byId.get(share.meterId);
      return meter === undefined ? [] : [{ ...share, meter }];
    }),
  );
  const divisible = to - from > HOUR || meters.length > 1;
  const stretch: Stretch = {
    from,
    to,
    hoursOnly: hoursOnly ?? (await isHoursOnly(pool, day)),
    tenantId,
    ...(divisible && mostRows !== undefined ? { mostRows } : {}),
  };
  const recount = new Recount(shares, stretch);
  const leftOut = new Set([...states.values()].flatMap((state) => state.leftOut));
  if (archived !== undefined) await recount.readArchived(archived, leftOut);
  for (const state of states.values()) if (state.version !== archived?.version) throw new Moved('while it was opened');
  return { recount, stretch, states, meters };
}

async function compareShard(
  deps: VerifyDeps,
  client: ClientBase,
  { recount, stretch, states, meters }: Seen,
  shard: number,
  exceptions: Exceptions,
): Promise<{ rows: number; found: Found[] }> {
  await recount.readStored(client, shard);
  const state = await stateOf(deps, client, shard, meters, stretch.from, stretch.to);
  if (JSON.stringify(state) !== JSON.stringify(states.get(shard))) throw new Moved('while it was recounted');
  const own = recount.counted.filter(({ share }) => share.shard === shard);
  return compareRows(client, own, stretch, exceptions);
}
