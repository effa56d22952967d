import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { TidemarkError } from '../schemas/index.ts';
import { isFrozen, ObjectMissing } from '../sinks/index.ts';
import { type DayRow, daysWithFiles } from './archive/day-state.ts';
import { fetchFile } from './archive/fetch-file.ts';
import { readFiles } from './archive/part-file.ts';
import { pauseFor } from './archive/write-parts.ts';
import { type Day, manifestKey, prefixOf } from './layout.ts';
import { sha256 } from './manifest.ts';
import type { Progress, TieringDeps } from './ports.ts';
import { withScratch } from './scratch.ts';

export interface VerifyResult extends Record<string, unknown> {
  days: number;
  files: number;
  bytes: number;
  /** what does not match, each naming the object */
  damaged: string[];
  /** in a cold class: not read */
  frozen: string[];
}

/**
 * Reads the archive back: manifests against the database's copy, files against their SHA-256, rows against the manifest by
 * tenant; and looks for files that no manifest names. Changes nothing but `verified_at` of days that are right.
 */
export async function verifyArchive(
  deps: TieringDeps,
  run: Progress,
  { from = '0001-01-01', to = '9999-12-31' }: { from?: Day; to?: Day } = {},
): Promise<VerifyResult> {
  const result: VerifyResult = { days: 0, files: 0, bytes: 0, damaged: [], frozen: [] };
  for (const row of await daysWithFiles(deps.pool, from, to)) {
    run.signal.throwIfAborted();
    const before = result.damaged.length + result.frozen.length;
    await verifyManifest(deps, row, result);
    await verifyFiles(deps, row, run, result);
    result.days++;
    if (result.damaged.length + result.frozen.length === before)
      await deps.pool.query('UPDATE archive_days SET verified_at = now() WHERE day = $1', [row.day]);
    await run.progress({ day: row.day, damaged: result.damaged.length });
  }
  return result;
}

async function verifyManifest({ store }: TieringDeps, row: DayRow, result: VerifyResult): Promise<void> {
  const key = manifestKey(row.day);
  const known = new Set([key, ...(row.current?.manifest.files ?? []).map((file) => file.key)]);
  for (const file of row.pending?.manifest.files ?? []) known.add(file.key);
  for await (const object of store.list(prefixOf(row.day)))
    if (!known.has(object.key)) result.damaged.push(`${object.key}: no manifest names it`);
  try {
    const stored = sha256(await text(await store.get(key)));
    const expected = [row.current?.sha256, row.pending?.sha256];
    if (!expected.includes(stored))
      result.damaged.push(`${key}: SHA-256 ${stored}, the database knows ${row.current?.sha256}`);
  } catch (error) {
    if (!(error instanceof ObjectMissing)) throw error;
    result.damaged.push(`${key}: missing (an archive run writes it again from the copy in the database)`);
  }
}

async function verifyFiles(deps: TieringDeps, row: DayRow, run: Progress, result: VerifyResult): Promise<void> {
  const manifest = row.current?.manifest;
  if (manifest === undefined) return;
  await withScratch(deps, async (scratch, duck) => {
    const tenants = new Map<string, number>();
    let isWhole = true;
    for (const file of manifest.files) {
      run.signal.throwIfAborted();
      const began = performance.now();
      const object = await deps.store.head(file.key);
      if (object !== undefined && isFrozen(object)) {
        result.frozen.push(file.key);
        isWhole = false;
        continue;
      }
      const path = join(scratch, 'verify.parquet');
      try {
        await fetchFile(deps.store, file, path);
        const totals = await readFiles(duck, [path]);
        if (totals.rows !== file.rows) throw new TidemarkError('archive_damaged', `${file.key}: ${totals.rows} rows`);
        for (const [id, rows] of totals.tenants) tenants.set(id, (tenants.get(id) ?? 0) + rows);
      } catch (error) {
        if (!(error instanceof TidemarkError && error.code === 'archive_damaged')) throw error;
        result.damaged.push(error.message);
        isWhole = false;
      }
      await rm(path, { force: true });
      result.files++;
      result.bytes += file.bytes;
      await pauseFor(deps, performance.now() - began, run.signal);
    }
    if (!isWhole) return;
    for (const id of new Set([...tenants.keys(), ...Object.keys(manifest.tenants)]))
      if (tenants.get(id) !== manifest.tenants[id]?.rows)
        result.damaged.push(
          `${row.day}: tenant ${id} has ${tenants.get(id) ?? 0} rows, the manifest says ${manifest.tenants[id]?.rows ?? 0}`,
        );
  });
}
