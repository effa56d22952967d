/** The archive job: one day after the other, oldest first; what one run leaves half done, the next one ends. */
import { setTimeout as rest } from 'node:timers/promises';
import { TIME_TABLES } from '../../schemas/index.ts';
import type { Chunk } from '../../sinks/index.ts';
import { type Day, dayOf, endOf, manifestKey, prefixOf, startOf } from '../layout.ts';
import type { Progress, TieringDeps } from '../ports.ts';
import { dropAbandoned } from '../recall/recall.ts';
import { archiveDay } from './archive-day.ts';
import { claimDay, type DayRow, forgetDay, LeaseLost, releaseDay, rowsOf, setArchived } from './day-state.ts';
import { dropChunks, dropDetached, MOST_TRIES, RETRY_MS } from './drop-chunks.ts';
import { dropMinutes } from './drop-minutes.ts';

const DAY_MS = 86_400_000;
/** Rounds of archiving what came while the one before was written; then the day waits for the next run. */
const MOST_ROUNDS = 5;

export interface RunResult extends Record<string, unknown> {
  /** days that left the database now */
  archived: Day[];
  /** recalled days whose stay is over: readers find them in the archive again */
  released: Day[];
  /** rows that went into the archive */
  rows: number;
  /** days that another archiver has, that writers held, or that failed, with the reason */
  left: Record<Day, string>;
  /** days whose minute rollups were dropped */
  minutes: Day[];
  expired: Day[];
}

/** The first day that stays in the database. */
export const hotSince = ({ now, settings }: Pick<TieringDeps, 'now' | 'settings'>): Day =>
  dayOf(now() - settings.hotDays * DAY_MS);

/** @param before first day that stays; days after the clock's are never taken */
export async function runArchive(deps: TieringDeps, run: Progress, before = hotSince(deps)): Promise<RunResult> {
  const result: RunResult = { archived: [], released: [], rows: 0, left: {}, minutes: [], expired: [] };
  await dropAbandoned(deps);
  await finishDetached(deps, run);
  for (const day of await daysBefore(deps, before)) {
    run.signal.throwIfAborted();
    try {
      await takeDay(deps, day, run, result);
    } catch (error) {
      if (run.signal.aborted) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      result.left[day] = reason;
      deps.logger.error({ day, err: error }, `the day stays where it is: ${reason}`);
    }
  }
  await finishDetached(deps, run);
  result.minutes = await dropMinutes(deps, Math.min(startOf(before), startOf(hotSince(deps))));
  result.expired = await forgetExpired(deps).catch((error) => {
    deps.logger.warn({ err: error }, 'what has expired is looked for next time');
    return [];
  });
  return result;
}

/** Days of chunks that end before `before`, and days that a run before did not end. */
async function daysBefore(deps: TieringDeps, before: Day): Promise<Day[]> {
  const limit = Math.min(startOf(before), endOf(dayOf(deps.now())));
  const chunks = await deps.engine.listChunks(deps.pool, TIME_TABLES.events);
  const days = new Set<Day>();
  for (const chunk of chunks.filter((one) => one.to <= limit || isWithinDay(one, limit)))
    for (let at = chunk.from; at < chunk.to; at += DAY_MS) days.add(dayOf(at));
  const { rows } = await deps.pool.query<{ day: Day }>(
    `SELECT day::text AS day FROM archive_days WHERE day < $1 AND (state IN ('new', 'written', 'verified') OR recalled_until IS NOT NULL)`,
    [dayOf(limit)],
  );
  for (const { day } of rows) days.add(day);
  return [...days].sort();
}

const isWithinDay = (chunk: Chunk, limit: number): boolean => chunk.to - chunk.from < DAY_MS && chunk.from < limit;

async function takeDay(deps: TieringDeps, day: Day, run: Progress, result: RunResult): Promise<void> {
  const claimed = await claimDay(deps.pool, day, deps.settings.leaseMs);
  if (claimed === undefined) {
    result.left[day] = 'another archiver has it';
    return;
  }
  let failure: string | null = null;
  try {
    if (claimed.recalled !== undefined && claimed.recalled.until > deps.now()) return;
    deps.fault?.('claimed');
    const before = claimed.current?.manifest.rows ?? 0;
    const outcome = await moveDay(deps, claimed, run);
    const [row] = await rowsOf(deps.pool, day, day);
    if (outcome === 'dropped' || outcome === 'nothing') {
      const rows = (row?.current?.manifest.rows ?? 0) - before;
      if (rows > 0) result.archived.push(day);
      if (claimed.recalled !== undefined) result.released.push(day);
      result.rows += rows;
    } else result.left[day] = outcome === 'busy' ? 'writers hold it' : 'its chunk holds days that stay';
    if (row !== undefined) await removeOrphans(deps, row);
    if (row !== undefined && row.current === undefined && row.pending === undefined && row.chunks.length === 0)
      await forgetDay(deps.pool, { ...row, epoch: claimed.epoch });
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
    if (error instanceof LeaseLost) deps.logger.warn({ day }, failure);
    throw error;
  } finally {
    await releaseDay(deps.pool, claimed, failure).catch(() => undefined);
  }
}

/** Archives and drops, again while events come in between. */
async function moveDay(deps: TieringDeps, claimed: DayRow, run: Progress) {
  let row = claimed;
  let tries = 0;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    row = await archiveDay(deps, row, run);
    let outcome = await dropChunks(deps, row.day);
    while (outcome === 'busy' && tries++ < MOST_TRIES) {
      await rest(RETRY_MS, undefined, { signal: run.signal });
      outcome = await dropChunks(deps, row.day);
    }
    if (outcome === 'dropped') deps.fault?.('detached');
    if (outcome !== 'late') return outcome;
  }
  return 'busy';
}

/** Drops what was detached, whoever did it. */
async function finishDetached(deps: TieringDeps, run: Progress): Promise<void> {
  const { rows } = await deps.pool.query<{ day: Day }>(
    `SELECT day::text AS day FROM archive_days WHERE state = 'detached' OR cardinality(chunks) > 0 ORDER BY 1`,
  );
  for (const { day } of rows) {
    run.signal.throwIfAborted();
    const claimed = await claimDay(deps.pool, day, deps.settings.leaseMs);
    if (claimed === undefined) continue;
    try {
      for (const name of claimed.chunks) await dropDetached(deps, name);
      if (claimed.chunks.length > 0) deps.fault?.('dropped');
      // Also those that a recalled day had before it was written anew.
      await removeOrphans(deps, claimed);
      if (claimed.state === 'detached' || claimed.chunks.length > 0) await setArchived(deps.pool, claimed);
      deps.fault?.('archived');
    } finally {
      await releaseDay(deps.pool, claimed, null).catch(() => undefined);
    }
  }
}

/** Files that crashed runs left beside those of the manifest: whoever reads the folder as a whole would count them twice. */
async function removeOrphans({ store, logger }: TieringDeps, row: DayRow): Promise<void> {
  const known = new Set(
    [...(row.current?.manifest.files ?? []), ...(row.pending?.manifest.files ?? [])].map((file) => file.key),
  );
  for await (const { key } of store.list(prefixOf(row.day))) {
    if (known.has(key) || key === manifestKey(row.day)) continue;
    logger.warn({ key }, 'a file without a manifest, left by a crash, is removed');
    await store.delete(key);
  }
}

/** Days whose files the lifecycle rules have deleted. */
async function forgetExpired({ store, pool, now }: TieringDeps): Promise<Day[]> {
  const expired = new Set<Day>();
  await store.expire(now());
  const days = (await store.lifecycle()).flatMap((rule) => (rule.expireDays === undefined ? [] : [rule.expireDays]));
  if (days.length === 0) return [];
  const { rows } = await pool.query<{ day: Day }>(
    `SELECT day::text AS day FROM archive_days WHERE state = 'archived' AND archived_at < $1 AND recalled_until IS NULL`,
    [new Date(now() - Math.min(...days) * DAY_MS)],
  );
  for (const { day } of rows) {
    if ((await store.head(manifestKey(day))) !== undefined) continue;
    await pool.query('DELETE FROM archive_days WHERE day = $1', [day]);
    expired.add(day);
  }
  return [...expired];
}
