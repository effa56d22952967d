/**
 * Rows of a planned day into files that were read back. A slice goes through three things, one after the other: PostgreSQL's
 * answer is spooled, DuckDB makes a sorted file of the spool, the file is stored and fetched again. At full duty two slices are
 * under way at once, each with a DuckDB of its own: while one waits for PostgreSQL or the store, the other one computes.
 */
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as rest } from 'node:timers/promises';
import { TidemarkError } from '../../schemas/index.ts';
import type { Duck } from '../duckdb.ts';
import { type Day, partKey, partNumber, prefixOf, tagsOf } from '../layout.ts';
import { addTenants, type ManifestFile, type TenantTotals } from '../manifest.ts';
import type { Progress, TieringDeps } from '../ports.ts';
import { withScratch } from '../scratch.ts';
import { type DayRow, renewDay } from './day-state.ts';
import { fetchFile } from './fetch-file.ts';
import {
  areEqual,
  digestOf,
  readFiles,
  type Spool,
  type SpoolTotals,
  spool,
  type Totals,
  withSpool,
  writePart,
} from './part-file.ts';
import { copyOf, type DayPlan, type Slice, splitSlice } from './plan.ts';

/** Slices under way at once, at full duty. */
const MOST_LANES = 2;

/** A day under work. */
interface Work {
  deps: TieringDeps;
  row: DayRow;
  plan: DayPlan;
}

/** The same, and what one of its slices is done with. */
interface Lane extends Work {
  scratch: string;
  duck: Duck;
  signal: AbortSignal;
}

/** Files of all slices, stored and read back; rows and sums by tenant as the database sent them. */
interface Written {
  files: ManifestFile[];
  tenants: Record<string, TenantTotals>;
}

/** @throws TidemarkError `archive_damaged` naming the file | {LeaseLost} | {ObjectStoreUnavailable} */
export async function writeParts(work: Work, run: Progress): Promise<Written> {
  const { deps, row, plan } = work;
  const { settings } = deps;
  const written: Written = { files: [], tenants: {} };
  const waiting = [...plan.slices];
  let next = await nextPart(deps, row.day);
  let rows = 0;
  const take = async (lane: Lane, slice: Slice): Promise<void> => {
    const part = await writeOrSplit(lane, slice, await spoolSlice(lane, slice));
    await renewDay(deps.pool, row, settings.leaseMs);
    if (Array.isArray(part)) {
      waiting.unshift(...part);
      return;
    }
    const file = await storePart(lane, slice, part, partKey(row.day, next++));
    written.files.push(file);
    written.tenants = addTenants(written.tenants, part.totals.sums);
    rows += file.rows;
    await renewDay(deps.pool, row, settings.leaseMs);
    await run.progress({ day: row.day, rows, of: plan.rows });
  };
  const lanes = settings.dutyPercent === 100 ? Math.min(MOST_LANES, settings.threads) : 1;
  const share = {
    ...settings,
    // A DuckDB takes more than its limit: two with a third each take as much as one with all of it.
    memoryBytes: lanes === 1 ? settings.memoryBytes : settings.memoryBytes / (lanes + 1),
    threads: Math.ceil(settings.threads / lanes),
  };
  const failed = new AbortController();
  const signal = AbortSignal.any([run.signal, failed.signal]);
  const follow = (): Promise<void> =>
    withScratch({ scratch: deps.scratch, settings: share }, async (scratch, duck) => {
      for (let slice = waiting.shift(); slice !== undefined; slice = waiting.shift()) {
        signal.throwIfAborted();
        const began = performance.now();
        await take({ ...work, scratch, duck, signal }, slice);
        await pauseFor(deps, performance.now() - began, signal);
      }
    }).catch((error) => {
      failed.abort(error);
      throw error;
    });
  // All of them end before the first one's failure is told: none writes on behind our back.
  const ends = await Promise.allSettled(Array.from({ length: lanes }, follow));
  run.signal.throwIfAborted();
  failed.signal.throwIfAborted();
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  if (rows !== plan.rows)
    throw new TidemarkError(
      'archive_damaged',
      `${row.day}: ${rows} rows were written, the database holds ${plan.rows}`,
    );
  return { ...written, files: written.files.toSorted((a, b) => a.first - b.first) };
}

/** The rows of a slice in a file of the scratch folder. @throws TidemarkError `archive_damaged` */
async function spoolSlice({ deps, scratch, signal, plan }: Lane, slice: Slice): Promise<Spool> {
  const spooled = await spool(deps.pool, copyOf(plan, slice), join(scratch, 'spool'), signal);
  if (spooled.rows !== slice.rows)
    throw new TidemarkError(
      'archive_damaged',
      `PostgreSQL sent ${spooled.rows} rows of ${plan.day}, counted ${slice.rows}`,
    );
  deps.fault?.('spooled');
  return spooled;
}

interface Part {
  path: string;
  sha256: string;
  bytes: number;
  totals: SpoolTotals;
}

/** A slice whose rows don't fit into the memory is cut in two, as often as needed. */
async function writeOrSplit(lane: Lane, slice: Slice, spooled: Spool): Promise<Part | Slice[]> {
  const { deps, duck, scratch, plan } = lane;
  const path = join(scratch, 'part.parquet');
  try {
    return await withSpool(duck, spooled, async (totals) => {
      if (totals.rows !== slice.rows)
        throw new TidemarkError('archive_damaged', `${totals.rows} rows of ${plan.day} were read, sent ${slice.rows}`);
      await writePart(duck, path, deps.settings.zstdLevel);
      deps.fault?.('part-written');
      return { path, totals, ...(await digestOf(path)) };
    });
  } catch (error) {
    const isTooBig = error instanceof Error && error.message.startsWith('Out of Memory Error');
    const halves = isTooBig ? await splitSlice(deps.pool, plan, slice) : undefined;
    if (halves === undefined) throw error;
    deps.logger.info(
      { day: plan.day, rows: slice.rows },
      'a file is cut in two: it does not fit into ARCHIVE_MEMORY_MB',
    );
    return halves;
  } finally {
    await rm(spooled.path, { force: true });
  }
}

/** Stores a file, and holds what the store gives back against what the database sent. */
async function storePart(lane: Lane, slice: Slice, part: Part, key: string): Promise<ManifestFile> {
  const { deps, row } = lane;
  const { totals } = part;
  await putPart(deps, key, part);
  await rm(part.path, { force: true });
  deps.fault?.('part-stored');
  const file: ManifestFile = {
    key,
    rows: totals.rows,
    bytes: part.bytes,
    sha256: part.sha256,
    generation: ((row.pending ?? row.current)?.manifest.generation ?? 0) + 1,
    first: totals.first ?? slice.from,
    last: totals.last ?? slice.from,
    topic: slice.topic,
    source_in_key: slice.sourceInKey,
  };
  if (!areEqual(await readBack(lane, file), totals))
    throw new TidemarkError('archive_damaged', `${key} does not hold what the database sent`);
  return file;
}

/** A file as the store gives it back: its bytes, and what its rows add up to. @throws TidemarkError `archive_damaged` naming it */
export async function readBack(
  { deps, scratch, duck }: Pick<Lane, 'deps' | 'scratch' | 'duck'>,
  file: ManifestFile,
): Promise<Totals> {
  const path = join(scratch, 'read-back.parquet');
  await fetchFile(deps.store, file, path);
  const totals = await readFiles(duck, [path]);
  await rm(path, { force: true });
  deps.fault?.('read-back');
  return totals;
}

/** A number that no file has, in the manifest or beside it: a file is never written over. */
export async function nextPart({ store }: Pick<TieringDeps, 'store'>, day: Day): Promise<number> {
  let next = 0;
  for await (const { key } of store.list(prefixOf(day))) next = Math.max(next, (partNumber(key) ?? -1) + 1);
  return next;
}

export async function putPart(
  { store }: Pick<TieringDeps, 'store'>,
  key: string,
  part: { path: string; sha256: string },
): Promise<void> {
  await store.put(key, createReadStream(part.path, { highWaterMark: 1 << 20 }), {
    ifAbsent: true,
    sha256: part.sha256,
    contentType: 'application/vnd.apache.parquet',
    tags: tagsOf('part', false),
  });
}

/** Rests so that work takes its share of the time. */
export async function pauseFor(
  { settings }: Pick<TieringDeps, 'settings'>,
  workedMs: number,
  signal: AbortSignal,
): Promise<void> {
  const ms = workedMs * (100 / settings.dutyPercent - 1);
  if (ms >= 1) await rest(Math.min(ms, 60_000), undefined, { signal });
}
