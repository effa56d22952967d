import type { Pool } from 'pg';
import { TIME_TABLES, TidemarkError } from '../../schemas/index.ts';
import { type StorageEngine, withTransaction } from '../../sinks/index.ts';
import type { ArchivedEvents } from '../archived-events.ts';
import { inParts } from '../recount/parts.ts';
import { DAY, HOUR } from '../rollups/rollups.ts';
import { startOfDay } from '../utc-day.ts';
import { type Cut, lockCuts, passBy } from './cut.ts';
import { backfillStretch, type StepDeps } from './step.ts';

/** What makes a day be passed by: it can be read later, or never, but others can. */
const PASSED_BY = new Set(['archive_frozen', 'archive_damaged']);

/** Days (UTC, Unix ms) that have raw events, in the database or the archive, as one snapshot has them; ascending. */
export async function daysWithEvents(pool: Pool, engine: StorageEngine, archive: ArchivedEvents): Promise<number[]> {
  return withTransaction(pool, async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    const days = new Set(await archive.days(client));
    for (const chunk of await engine.listChunks(client, TIME_TABLES.events))
      for (let day = startOfDay(chunk.from); day < chunk.to; day += DAY) days.add(day);
    return [...days].sort((a, b) => a - b);
  });
}

export interface DayDeps extends StepDeps {
  signal: AbortSignal;
  /** after every stretch */
  counted(cuts: readonly Cut[], events: number, to: number): Promise<void>;
}

/** What became of a day: cuts that another process has overtaken, and why the day was passed by. */
export interface DayOutcome {
  overtaken: Cut[];
  passed?: string;
}

/**
 * Counts what is left of a day for these cuts: of the archive as long a stretch at once as fits in memory, so that its
 * files are read once for all meters; of the database an hour.
 */
export async function backfillDay(deps: DayDeps, cuts: readonly Cut[], day: number): Promise<DayOutcome> {
  const outcome: DayOutcome = { overtaken: [] };
  for (;;) {
    const version = await deps.archive.versionOf(deps.pool, day);
    const hours = version === undefined ? await hoursOf(deps.pool, cuts, day) : [];
    if ((await deps.archive.versionOf(deps.pool, day)) !== version) continue;
    try {
      if (version === undefined)
        for (const { cuts: own, hour } of hours) await count(deps, own, hour, hour + HOUR, outcome);
      else
        for (const [mark, own] of Map.groupBy(cuts, (cut) => Math.max(day, cut.backfilledUntil)))
          if (mark < day + DAY) await count(deps, own, mark, day + DAY, outcome);
    } catch (error) {
      if (!(error instanceof TidemarkError) || !PASSED_BY.has(error.code)) throw error;
      await passDay(deps, cuts, day, error.code, outcome);
      outcome.passed = error.code;
    }
    return outcome;
  }
}

/** Counts a stretch, in smaller parts where it is too much. */
const count = (deps: DayDeps, all: readonly Cut[], from: number, to: number, outcome: DayOutcome): Promise<void> =>
  inParts(all, from, to, async (some, start, end) => {
    const cuts = some.filter((cut) => cut.backfilledUntil < end && !outcome.overtaken.includes(cut));
    if (cuts.length === 0) return;
    deps.signal.throwIfAborted();
    const { events, overtaken } = await backfillStretch(deps, cuts, start, end);
    outcome.overtaken.push(...overtaken);
    await deps.counted(cuts, events, end);
  });

/** Hours of a day in the database that have events of the past of these cuts, a shard after the other. */
async function hoursOf(pool: Pool, cuts: readonly Cut[], day: number): Promise<{ cuts: Cut[]; hour: number }[]> {
  const found: { cuts: Cut[]; hour: number }[] = [];
  for (const [shard, own] of Map.groupBy(cuts, (cut) => cut.shard)) {
    const mark = Math.min(...own.map((cut) => cut.backfilledUntil));
    const { rows } = await pool.query<{ hour: number }>(
      `SELECT DISTINCT (extract(epoch FROM date_bin('1 hour', e."timestamp", 'epoch')) * 1000)::float8 AS hour FROM events AS e
       WHERE e.shard = $1 AND e.log_offset < $2 AND e."timestamp" >= $3 AND e."timestamp" < $4 ORDER BY 1`,
      [shard, Math.max(...own.map((cut) => cut.cut)), new Date(Math.max(day, mark)), new Date(day + DAY)],
    );
    for (const { hour } of rows) found.push({ cuts: own.filter((cut) => cut.backfilledUntil <= hour), hour });
  }
  return found;
}

async function passDay(
  { pool }: DayDeps,
  cuts: readonly Cut[],
  day: number,
  reason: string,
  outcome: DayOutcome,
): Promise<void> {
  const open = cuts.filter((cut) => cut.backfilledUntil < day + DAY && !outcome.overtaken.includes(cut));
  for (const [shard, own] of Map.groupBy(open, (cut) => cut.shard))
    await withTransaction(pool, async (client) => {
      const held = await lockCuts(client, shard, own);
      for (const cut of held) await passBy(client, cut, day, reason);
      outcome.overtaken.push(...own.filter((cut) => !held.includes(cut)));
    });
  for (const cut of open) if (cut.gap === undefined) cut.backfilledUntil = day + DAY;
}
