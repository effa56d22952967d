/**
 * A day of the archive back in the database, for a stay. Its rows are loaded into a table of their own, from files that are
 * held against the manifest; one transaction makes that table the day's chunk and tells readers so. The files stay as they
 * are: when the stay is over the archive job lets the day go again (see archive/).
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as rest } from 'node:timers/promises';
import type { ClientBase } from 'pg';
import { TIME_TABLES, TidemarkError } from '../../schemas/index.ts';
import { BinaryCopy, type Chunk, copyInto, isFrozen, quoteIdentifier, withTransaction } from '../../sinks/index.ts';
import { identityOf, reconcile } from '../archive/archive-day.ts';
import {
  claimDay,
  type DayRow,
  filesOfDays,
  releaseDay,
  renewDay,
  setRecalled,
  setStay,
} from '../archive/day-state.ts';
import {
  dropDetached,
  isLockFailure,
  LOCK_TIMEOUT_MS,
  MOST_TRIES,
  RETRY_MS,
  requireEqualTotals,
} from '../archive/drop-chunks.ts';
import { fetchFile } from '../archive/fetch-file.ts';
import { pauseFor } from '../archive/write-parts.ts';
import { type Day, endOf, startOf } from '../layout.ts';
import type { Manifest } from '../manifest.ts';
import type { Progress, TieringDeps } from '../ports.ts';
import { eventsIn, shardsOf } from '../reading/reader.ts';
import { frozenDays } from '../restore.ts';
import { withScratch } from '../scratch.ts';
import { checkOf, totalsOf } from './check.ts';
import { copyStored, writeStoredRow } from './stored-row.ts';

const DAY_MS = 86_400_000;
const { events } = TIME_TABLES;
/** A COPY is sent when so many bytes are together. */
const COPY_BYTES = 1 << 20;

export interface RecallResult extends Record<string, unknown> {
  day: Day;
  rows: number;
  recalled_until: string;
  /** whether its minute rollups are there; not where somebody was erased from it */
  minutes: boolean;
}

/** Drops what a killed recall has left behind, unless another process is at it. */
export async function dropAbandoned({ pool, settings }: TieringDeps): Promise<void> {
  const { rows } = await pool.query<{ name: string; day: Day }>(ABANDONED);
  for (const { name, day } of rows) {
    const claimed = await claimDay(pool, day, settings.leaseMs);
    if (claimed === undefined) continue;
    await pool.query(`DROP TABLE IF EXISTS ${quoteIdentifier(name)}`);
    await releaseDay(pool, claimed, null);
  }
}

const ABANDONED = `
  SELECT relname AS name, to_date(right(relname, 8), 'YYYYMMDD')::text AS day FROM pg_class
  WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname ~ '^recall_\\d{8}$'`;
/** Where a day is loaded before it is the table's. */
const asideOf = (day: Day): string => `recall_${day.replaceAll('-', '')}`;

/**
 * Brings a day back for `days` from now, with its minute rollups; of one that is back, its stay ends then.
 * @throws TidemarkError `not_found`, `archive_frozen`, `archive_busy`, `archive_damaged`
 */
export async function recallDay(deps: TieringDeps, run: Progress, day: Day, days: number): Promise<RecallResult> {
  await requireRecallable(deps, day);
  const until = deps.now() + days * DAY_MS;
  const rows = await withLease(deps, day, (claimed) => bringBack(deps, run, claimed, until));
  const minutes = days > 0 && ((await deps.bringMinutesBack?.(startOf(day), run.signal)) ?? false);
  return { day, rows, recalled_until: new Date(until).toISOString(), minutes };
}

async function withLease<T>(deps: TieringDeps, day: Day, work: (claimed: DayRow) => Promise<T>): Promise<T> {
  const claimed = await claimDay(deps.pool, day, deps.settings.leaseMs);
  if (claimed === undefined) throw new TidemarkError('archive_busy', `another archiver has ${day}`);
  let failure: string | null = null;
  try {
    deps.fault?.('recall-claimed');
    return await work(claimed);
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
    throw error;
  } finally {
    await releaseDay(deps.pool, claimed, failure).catch(() => undefined);
  }
}

/** @throws TidemarkError `not_found`, `archive_frozen` */
export async function requireRecallable({ pool, store }: Pick<TieringDeps, 'pool' | 'store'>, day: Day): Promise<void> {
  const [row] = await filesOfDays(pool, [day]);
  if (row?.current === undefined) throw new TidemarkError('not_found', `${day} is not in the archive`);
  if (row.recalled !== undefined) return;
  for (const { key } of row.current.manifest.files) {
    const object = await store.head(key);
    if (object !== undefined && isFrozen(object)) throw frozenDays([day]);
  }
}

async function bringBack(deps: TieringDeps, run: Progress, claimed: DayRow, until: number): Promise<number> {
  const { pool } = deps;
  if (claimed.recalled !== undefined) {
    await setStay(pool, claimed, until);
    return claimed.recalled.rows;
  }
  const row = await reconcile(deps, claimed, await identityOf(pool));
  const manifest = row.current?.manifest;
  if (row.pending !== undefined || manifest === undefined)
    throw new TidemarkError('archive_busy', `${row.day} is being archived: end that first (tidemark archive run)`);
  for (const name of row.chunks) await dropDetached(deps, name);
  await load(deps, run, row, manifest);
  deps.fault?.('recall-loaded');
  const aside = asideOf(row.day);
  requireEqualTotals(row.day, manifest.tenants, await totalsOf(pool, aside), deps.logger);
  const loaded = await checkOf(pool, quoteIdentifier(aside));
  deps.fault?.('recall-checked');
  for (let tries = 0; !(await swapIn(deps, row, { until, ...loaded })); tries++) {
    if (tries === MOST_TRIES) throw new TidemarkError('archive_busy', `writers or readers hold ${row.day}: try again`);
    await rest(RETRY_MS, undefined, { signal: run.signal });
    await renewDay(pool, row, deps.settings.leaseMs);
  }
  deps.fault?.('recalled');
  return loaded.rows;
}

/** All rows of the day's files into a table aside; what a crash left of it is dropped first. */
async function load(deps: TieringDeps, run: Progress, row: DayRow, manifest: Manifest): Promise<void> {
  const { pool, engine } = deps;
  const aside = asideOf(row.day);
  const interval = { from: startOf(row.day), to: endOf(row.day) };
  const shards = await shardsOf(pool);
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query(`DROP TABLE IF EXISTS ${quoteIdentifier(aside)}`);
    await engine.createDetached(client, events, aside);
    await withScratch(deps, async (scratch, duck) => {
      const path = join(scratch, 'recalled.parquet');
      const copy = new BinaryCopy(COPY_BYTES * 2);
      let rows = 0;
      for (const file of manifest.files) {
        const began = performance.now();
        await fetchFile(deps.store, file, path);
        for await (const some of eventsIn(duck, file, path, shards, { tenantIds: null, ...interval })) {
          run.signal.throwIfAborted();
          for (const event of some) writeStoredRow(copy, event);
          if (copy.bytes >= COPY_BYTES) await flush(client, aside, copy);
        }
        await flush(client, aside, copy);
        await rm(path, { force: true });
        rows += file.rows;
        await renewDay(pool, row, deps.settings.leaseMs);
        await run.progress({ day: row.day, rows, of: manifest.rows });
        await pauseFor(deps, performance.now() - began, run.signal);
      }
    });
    await engine.prepareDetached(client, events, aside, interval);
    await client.query(`ANALYZE ${quoteIdentifier(aside)}`);
  } catch (error) {
    broken = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    client.release(broken);
  }
}

async function flush(client: ClientBase, table: string, copy: BinaryCopy): Promise<void> {
  if (copy.rows > 0) await copyInto(client, copyStored(table), copy.finish());
  copy.reset();
}

/**
 * The day's chunk becomes what was loaded, and what came late and is in no file; readers find the day in the database from
 * the commit on. @returns false when locks could not be had in time
 */
async function swapIn(deps: TieringDeps, row: DayRow, recall: { until: number; rows: number; check: string }) {
  const { pool, engine } = deps;
  const aside = quoteIdentifier(asideOf(row.day));
  const interval = { from: startOf(row.day), to: endOf(row.day) };
  try {
    await withTransaction(pool, async (tx) => {
      await tx.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
      // Whoever makes or attaches a chunk holds this row.
      await tx.query(`SELECT FROM control_locks WHERE name = 'chunks' FOR UPDATE`);
      // Readers of both sides hold the table while they look where the day is.
      await tx.query('LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
      for (const chunk of await chunksWithin(deps, tx, row.day)) {
        await tx.query(
          `INSERT INTO ${aside} SELECT e.* FROM ${quoteIdentifier(chunk.name)} AS e
           LEFT JOIN archive_positions AS p ON p.day = $1 AND p.shard = e.shard
           WHERE p.next IS NULL OR e.log_offset >= p.next`,
          [row.day],
        );
        await engine.dropChunk(tx, chunk);
      }
      await engine.attachDetached(tx, events, asideOf(row.day), interval);
      await setRecalled(tx, row, recall);
      deps.fault?.('recall-swapped');
    });
    return true;
  } catch (error) {
    if (isLockFailure(error)) return false;
    throw error;
  } finally {
    engine.forget();
  }
}

/** Chunks of the day that late events made. @throws TidemarkError `archive_busy` */
async function chunksWithin({ engine }: TieringDeps, tx: ClientBase, day: Day): Promise<Chunk[]> {
  const chunks = (await engine.listChunks(tx, events)).filter((one) => one.from < endOf(day) && one.to > startOf(day));
  const wide = chunks.find((one) => one.from < startOf(day) || one.to > endOf(day));
  if (wide !== undefined)
    throw new TidemarkError(
      'archive_busy',
      `late events of ${day} stand in ${wide.name}, with other days: archive them first (tidemark archive run)`,
    );
  return chunks;
}
