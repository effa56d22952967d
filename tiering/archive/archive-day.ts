/**
 * The story of one day on its way from the database into the archive. Every step can be the last one of a process: the
 * next one goes on from what the database and the store say. Nothing leaves the database here (see drop-chunks.ts).
 */
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { ObjectMissing, PreconditionFailed } from '../../sinks/index.ts';
import { manifestKey, SCHEMA_VERSION, tagsOf } from '../layout.ts';
import {
  addTenants,
  emptyManifest,
  type Manifest,
  type ManifestFile,
  parseManifest,
  type SignedManifest,
  sign,
} from '../manifest.ts';
import { isHeld } from '../operations/holds.ts';
import type { Progress, TieringDeps } from '../ports.ts';
import { isUnchanged } from '../recall/check.ts';
import { withScratch } from '../scratch.ts';
import { type DayRow, renewDay, type StoredManifest, setCurrent, setPending, setVerified } from './day-state.ts';
import { addTotals, areEqual, noTotals, readSpool, spool } from './part-file.ts';
import { copyOf, planDay } from './plan.ts';
import { readBack, writeParts } from './write-parts.ts';

/**
 * Brings a day to `verified`: everything that the log had committed when it was planned is in files that were read back.
 * @returns the row, and whether anything was there to do
 * @throws {LeaseLost} | TidemarkError `archive_damaged`, `archive_conflict` | {ObjectStoreUnavailable}
 */
export async function archiveDay(deps: TieringDeps, claimed: DayRow, run: Progress): Promise<DayRow> {
  const database = await identityOf(deps.pool);
  let row = await reconcile(deps, claimed, database);
  let base = row.pending ?? row.current;
  if (row.state === 'written' && row.pending !== undefined) {
    // A crash came between manifest and verification.
    if (await isSound(deps, row, run)) row = await setVerified(deps.pool, row);
    else base = row.current;
  }
  // What was changed while the day was back is in no file: all of it is written anew.
  if (base === row.current && !(await isUnchanged(deps.pool, row))) base = undefined;
  const plan = await planDay(deps.pool, row.day, base?.manifest.positions ?? [], deps.settings.partRows);
  if (plan.rows === 0) return row;
  const { files, tenants } = await writeParts({ deps, row, plan }, run);
  const before = base?.manifest ?? emptyManifest(row.day);
  const stored = await putManifest(
    deps,
    row,
    sign({
      ...summed(before, [...before.files, ...files]),
      schema_version: SCHEMA_VERSION,
      database,
      ...successionOf(row, deps.now()),
      tenants: addTenants(before.tenants, tenants),
      positions: plan.positions,
    }),
  );
  await tagHeld(deps, stored.manifest);
  deps.fault?.('manifest-stored');
  row = await setPending(deps.pool, row, stored);
  deps.fault?.('written');
  row = await setVerified(deps.pool, row);
  deps.fault?.('verified');
  return row;
}

/** A day with events of a tenant under legal hold does not expire. */
export async function tagHeld({ pool, store }: TieringDeps, manifest: Manifest): Promise<void> {
  if (!(await isHeld(pool, Object.keys(manifest.tenants)))) return;
  for (const { key } of manifest.files) await store.tag(key, tagsOf('part', true));
  await store.tag(manifestKey(manifest.day), tagsOf('manifest', true));
}

/** Files that fail are not worth mending: the rows are still in the database, and new files are written of them. */
async function isSound(deps: TieringDeps, row: DayRow, run: Progress): Promise<boolean> {
  try {
    await verifyAgain(deps, row, run);
    return true;
  } catch (error) {
    if (!(error instanceof TidemarkError && error.code === 'archive_damaged')) throw error;
    deps.logger.error({ day: row.day, err: error }, `${error.message}: nothing was dropped, the day is written again`);
    return false;
  }
}

/** What a manifest says of the one before it. */
export function successionOf(row: DayRow, now: number): Pick<Manifest, 'generation' | 'previous' | 'written_at'> {
  const last = row.pending ?? row.current;
  return {
    generation: (last?.manifest.generation ?? 0) + 1,
    previous: last?.sha256 ?? null,
    written_at: new Date(now).toISOString(),
  };
}

export async function identityOf(pool: Pool): Promise<string> {
  const { rows } = await pool.query<{ id: string }>('SELECT id FROM archive_identity');
  return rows[0]?.id ?? '';
}

/** A manifest with other files: what follows from them. */
export const summed = (manifest: Manifest, all: readonly ManifestFile[]): Manifest => ({
  ...manifest,
  rows: all.reduce((sum, file) => sum + file.rows, 0),
  bytes: all.reduce((sum, file) => sum + file.bytes, 0),
  first: all.length === 0 ? null : Math.min(...all.map((file) => file.first)),
  last: all.length === 0 ? null : Math.max(...all.map((file) => file.last)),
  files: [...all],
});

/** Conditional on the version that was built upon: of two archivers one gets through. @throws TidemarkError `archive_conflict` */
export async function putManifest(
  { store }: Pick<TieringDeps, 'store'>,
  row: DayRow,
  signed: SignedManifest,
): Promise<StoredManifest> {
  const known = (row.pending ?? row.current)?.etag;
  try {
    const { etag } = await store.put(manifestKey(row.day), Buffer.from(signed.text), {
      ...(known === undefined ? { ifAbsent: true } : { ifMatch: known }),
      sha256: signed.sha256,
      contentType: 'application/json',
      tags: tagsOf('manifest', false),
    });
    return { ...signed, etag };
  } catch (error) {
    if (error instanceof PreconditionFailed || error instanceof ObjectMissing)
      throw new TidemarkError('archive_conflict', `the manifest of ${row.day} was changed meanwhile`, { cause: error });
    throw error;
  }
}

/** Whether the pending manifest has the files of the one before, and more; else the whole day was written anew. */
const isAddition = ({ pending, current }: DayRow): boolean =>
  current?.manifest.files.every(({ key }) => pending?.manifest.files.some((file) => file.key === key)) ?? true;

/** After a crash between manifest and verification: the rows are still in the database, so the files are compared with them anew. */
async function verifyAgain(deps: TieringDeps, row: DayRow, run: Progress): Promise<void> {
  const pending = row.pending?.manifest;
  if (pending === undefined) return;
  const before = isAddition(row) ? (row.current?.manifest.positions ?? []) : [];
  const starts = new Map(before.map(({ shard, next }) => [shard, next]));
  const known = new Set(row.current?.manifest.files.map((file) => file.key));
  const files = pending.files.filter((file) => !known.has(file.key));
  const plan = await planDay(deps.pool, row.day, before, deps.settings.partRows);
  // Rows that came since belong to the next generation.
  const bounded = { ...plan, starts, positions: pending.positions };
  await withScratch(deps, async (scratch, duck) => {
    const [sent, stored] = [noTotals(), noTotals()];
    const renew = () => renewDay(deps.pool, row, deps.settings.leaseMs);
    for (const slice of plan.slices) {
      addTotals(
        sent,
        await readSpool(duck, await spool(deps.pool, copyOf(bounded, slice), join(scratch, 'spool'), run.signal)),
      );
      await renew();
    }
    for (const file of files) {
      run.signal.throwIfAborted();
      addTotals(stored, await readBack({ deps, scratch, duck }, file));
      await renew();
    }
    if (!areEqual(sent, stored))
      throw new TidemarkError('archive_damaged', `${row.day}: files read back do not hold what the database holds`);
  });
}

/**
 * Brings database and store together after a crash: a manifest that was stored but not noted is taken on when it follows
 * the one known; a lost one is written again from the database's copy.
 */
export async function reconcile(deps: TieringDeps, row: DayRow, database: string): Promise<DayRow> {
  const { store, pool, logger } = deps;
  const known = row.pending ?? row.current;
  const found = await store.head(manifestKey(row.day));
  if (found === undefined) {
    if (known === undefined) return row;
    logger.warn({ day: row.day }, 'manifest lost: written again from the copy in the database');
    const { etag } = await store.put(manifestKey(row.day), Buffer.from(known.text), {
      ifAbsent: true,
      sha256: known.sha256,
      contentType: 'application/json',
      tags: tagsOf('manifest', false),
    });
    const stored = { ...known, etag };
    return row.pending === undefined ? setCurrent(pool, row, stored) : setPending(pool, row, stored);
  }
  if (found.etag === known?.etag) return row;
  const signed = parseManifest(await text(await store.get(manifestKey(row.day))), row.day);
  if (signed.sha256 === known?.sha256) {
    const stored = { ...known, etag: found.etag };
    return row.pending === undefined ? setCurrent(pool, row, stored) : { ...row, pending: stored };
  }
  if (signed.manifest.previous !== (known?.sha256 ?? null) || signed.manifest.database !== database)
    throw new TidemarkError(
      'archive_conflict',
      `${manifestKey(row.day)} is not the manifest that this database wrote, nor one that follows it`,
    );
  const stored = { ...signed, etag: found.etag };
  // The same events in other files: an erasure, with nothing of the database in it.
  const isRewritten = row.pending === undefined && samePositions(signed.manifest, row.current?.manifest);
  return isRewritten ? setCurrent(pool, row, stored) : setPending(pool, row, stored);
}

const samePositions = (a: Manifest, b: Manifest | undefined): boolean =>
  b !== undefined && JSON.stringify(a.positions) === JSON.stringify(b.positions);
