/**
 * Rows of a planned day into files that were read back. Three things happen to a slice: PostgreSQL's answer is spooled,
 * DuckDB makes a sorted file of the spool, the file is stored and fetched again. At full duty the next slice is spooled
 * meanwhile (a processor for PostgreSQL, one for DuckDB); below it, one thing happens at a time.
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
import { type DayRow, renewDay } from './day-state.ts';
import { fetchFile } from './fetch-file.ts';
import {
  areEqual,
  digestOf,
  readFiles,
  type SpoolTotals,
  spool,
  type Totals,
  withSpool,
  writePart,
} from './part-file.ts';
import { copyOf, type DayPlan, type Slice, splitSlice } from './plan.ts';

/** A day under work, and what it is done with. */
interface Work {
  deps: TieringDeps;
  run: Progress;
  scratch: string;
  duck: Duck;
  row: DayRow;
  plan: DayPlan;
}

/** Files of all slices, stored and read back; rows and sums by tenant as the database sent them. */
interface Written {
  files: ManifestFile[];
  tenants: Record<string, TenantTotals>;
}

/** @throws TidemarkError `archive_damaged` naming the file | {LeaseLost} | {ObjectStoreUnavailable} */
export async function writeParts(work: Work): Promise<Written> {
  const { deps, run, row, plan } = work;
  const written: Written = { files: [], tenants: {} };
  const isParallel = deps.settings.dutyPercent === 100;
  const waiting = [...plan.slices];
  let next = await nextPart(deps, row.day);
  let rows = 0;
  const finish = async (slice: Slice, path: string): Promise<void> => {
    const part = await writeOrSplit(work, slice, path);
    if (Array.isArray(part)) {
      waiting.unshift(...part);
      return;
    }
    const file = await storePart(work, slice, part, partKey(row.day, next++));
    written.files.push(file);
    written.tenants = addTenants(written.tenants, part.totals.sums);
    rows += file.rows;
    await renewDay(deps.pool, row, deps.settings.leaseMs);
    await run.progress({ day: row.day, rows, of: plan.rows });
  };
  let finishing: Promise<void> = Promise.resolve();
  try {
    for (let n = 0; waiting.length > 0; n++) {
      run.signal.throwIfAborted();
      const began = performance.now();
      const slice = waiting.shift();
      if (slice === undefined) break;
      const path = await spoolSlice(work, slice, `spool-${n % 2}`);
      await renewDay(deps.pool, row, deps.settings.leaseMs);
      await finishing;
      finishing = finish(slice, path);
      // Looked at in the next turn.
      finishing.catch(() => undefined);
      // The last one may be cut in two, which makes more to do.
      if (!isParallel || waiting.length === 0) await finishing;
      await pauseFor(deps, performance.now() - began, run.signal);
    }
  } finally {
    await finishing.catch(() => undefined);
  }
  if (rows !== plan.rows)
    throw new TidemarkError(
      'archive_damaged',
      `${row.day}: ${rows} rows were written, the database holds ${plan.rows}`,
    );
  return written;
}

/** The rows of a slice in a file of the scratch folder. @throws TidemarkError `archive_damaged` */
async function spoolSlice({ deps, run, scratch, plan }: Work, slice: Slice, name: string): Promise<string> {
  const path = join(scratch, name);
  const sent = await spool(deps.pool, copyOf(plan, slice), path, run.signal);
  if (sent !== slice.rows)
    throw new TidemarkError('archive_damaged', `PostgreSQL sent ${sent} rows of ${plan.day}, counted ${slice.rows}`);
  deps.fault?.('spooled');
  return path;
}

interface Part {
  path: string;
  sha256: string;
  bytes: number;
  totals: SpoolTotals;
}

/** A slice whose rows don't fit into the memory is cut in two, as often as needed. */
async function writeOrSplit(work: Work, slice: Slice, spooled: string): Promise<Part | Slice[]> {
  const { deps, duck, scratch, plan } = work;
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
    await rm(spooled, { force: true });
  }
}

/** Stores a file, and holds what the store gives back against what the database sent. */
async function storePart(work: Work, slice: Slice, part: Part, key: string): Promise<ManifestFile> {
  const { deps, row } = work;
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
  if (!areEqual(await readBack(work, file), totals))
    throw new TidemarkError('archive_damaged', `${key} does not hold what the database sent`);
  return file;
}

/** A file as the store gives it back: its bytes, and what its rows add up to. @throws TidemarkError `archive_damaged` naming it */
export async function readBack(
  { deps, scratch, duck }: Pick<Work, 'deps' | 'scratch' | 'duck'>,
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
