/**
 * Forgetting a tenant or one of its users: raw rows and dead letters in the database, files of the archive, names in
 * rollups. Files are written anew without the rows and the manifest follows its predecessor, so that a crash at any point is gone on from.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { isFrozen, quoteIdentifier } from '../../sinks/index.ts';
import { identityOf, putManifest, reconcile, successionOf, summed, tagHeld } from '../archive/archive-day.ts';
import { claimDay, type DayRow, daysWithFiles, releaseDay, setCurrent } from '../archive/day-state.ts';
import { fetchFile } from '../archive/fetch-file.ts';
import { digestOf, readFiles, writeParquet } from '../archive/part-file.ts';
import { IN_ORDER, SUMMED } from '../archive/row-sql.ts';
import { nextPart, putPart } from '../archive/write-parts.ts';
import { type Duck, files as filesOf, literal } from '../duckdb.ts';
import { type Day, partKey } from '../layout.ts';
import { addTenants, type ManifestFile, scaled, sign, type TenantTotals, unscaled } from '../manifest.ts';
import type { Progress, TieringDeps } from '../ports.ts';
import { openArchiveReader } from '../reading/reader.ts';
import { frozenDays } from '../restore.ts';
import { withScratch } from '../scratch.ts';
import { eraseDeadLetters, findDeadLetters } from './erase-dead-letters.ts';
import { isHeld } from './holds.ts';

export interface EraseRequest {
  tenantId: string;
  /** null: the tenant as a whole */
  userId: string | null;
  reason: string;
  /** who asked */
  by: string;
}

export interface EraseResult extends Record<string, unknown> {
  erasure: string;
  hot_rows: number;
  archived_rows: number;
  days: number;
}

const FIND = `
  SELECT id FROM erasures WHERE tenant_id = $1 AND user_id IS NOT DISTINCT FROM $2 AND verified_at IS NULL ORDER BY created_at LIMIT 1`;
const BEGIN = 'INSERT INTO erasures (tenant_id, user_id, reason, requested_by) VALUES ($1, $2, $3, $4) RETURNING id';
/** Whose rows of a file go. */
interface Whose {
  tenantId: string;
  /** null: the tenant as a whole */
  userId: string | null;
  /** absent: whenever they were received */
  receivedBefore?: Date;
}
/** Tables that hold values of UNIQUE_COUNT meters, or of groups, as texts. */
const NAMED = [
  { table: 'members_minute', column: 'members' },
  { table: 'members_hour', column: 'members' },
  { table: 'rollup_groups', column: 'values' },
];

/** @throws TidemarkError `conflict` (legal hold), `archive_frozen`, `archive_busy` */
export async function eraseEvents(deps: TieringDeps, run: Progress, request: EraseRequest): Promise<EraseResult> {
  const { pool } = deps;
  const { tenantId, userId } = request;
  if (await isHeld(pool, [tenantId]))
    throw new TidemarkError('conflict', 'the tenant is under legal hold: release it first');
  const { rows: pending } = await pool.query<{ day: Day }>(
    'SELECT day::text AS day FROM archive_days WHERE pending IS NOT NULL LIMIT 1',
  );
  if (pending[0] !== undefined)
    throw new TidemarkError(
      'archive_busy',
      `${pending[0].day} is being archived: end that first (tidemark archive run)`,
    );
  const { rows: open } = await pool.query<{ id: string }>(FIND, [tenantId, userId]);
  const { rows: made } =
    open.length > 0
      ? { rows: open }
      : await pool.query<{ id: string }>(BEGIN, [tenantId, userId, request.reason, request.by]);
  const id = made[0]?.id ?? '';
  const hot = await eraseHot(pool, request, id);
  await pool.query('UPDATE erasures SET hot_rows = hot_rows + $2 WHERE id = $1', [id, hot]);
  const frozen: Day[] = [];
  for (const { day, current } of await daysWithFiles(pool, '0001-01-01', '9999-12-31')) {
    run.signal.throwIfAborted();
    if (current === undefined || !(tenantId in current.manifest.tenants)) continue;
    const removed = await eraseDay(deps, day, request);
    if (removed === 'frozen') frozen.push(day);
    else
      await pool.query(
        'UPDATE erasures SET archived_rows = archived_rows + $2, done_days = array_append(done_days, $3::date) WHERE id = $1',
        [id, removed, day],
      );
    await run.progress({ day, frozen: frozen.length });
  }
  if (frozen.length > 0) throw frozenDays(frozen);
  await requireForgotten(deps, request);
  const { rows } = await pool.query<{ hot_rows: number; archived_rows: number; days: number }>(
    `UPDATE erasures SET verified_at = now() WHERE id = $1
     RETURNING hot_rows::float8 AS hot_rows, archived_rows::float8 AS archived_rows, cardinality(done_days) AS days`,
    [id],
  );
  return {
    erasure: id,
    hot_rows: rows[0]?.hot_rows ?? 0,
    archived_rows: rows[0]?.archived_rows ?? 0,
    days: rows[0]?.days ?? 0,
  };
}

/** Counts stay what they were: a name becomes one that says nothing. @returns raw rows deleted */
async function eraseHot(pool: Pool, { tenantId, userId }: EraseRequest, id: string): Promise<number> {
  const { rowCount } = await pool.query(
    'DELETE FROM events WHERE tenant_id = $1 AND ($2::text IS NULL OR user_id = $2)',
    [tenantId, userId],
  );
  await eraseDeadLetters(pool, { tenantId, userId });
  if (userId !== null)
    for (const { table, column } of NAMED)
      await pool.query(
        `UPDATE ${quoteIdentifier(table)} SET ${quoteIdentifier(column)} = array_replace(${quoteIdentifier(column)}, $2::text, $3::text)
         WHERE tenant_id = $1 AND $2::text = ANY (${quoteIdentifier(column)})`,
        [tenantId, userId, `erased-${id}`],
      );
  return rowCount ?? 0;
}

/** Writes a day's files anew without these rows. @returns how many @throws TidemarkError `archive_busy`, `archive_damaged` */
export async function eraseDay(deps: TieringDeps, day: Day, whose: Whose): Promise<number | 'frozen'> {
  const claimed = await claimDay(deps.pool, day, deps.settings.leaseMs);
  if (claimed === undefined) throw new TidemarkError('archive_busy', `another archiver has ${day}`);
  try {
    const row = await reconcile(deps, claimed, await identityOf(deps.pool));
    if (row.pending !== undefined || row.current === undefined)
      throw new TidemarkError('archive_busy', `${day} is being archived: end that first (tidemark archive run)`);
    for (const { key } of row.current.manifest.files) {
      const object = await deps.store.head(key);
      if (object !== undefined && isFrozen(object)) return 'frozen';
    }
    return await withScratch(deps, (scratch, duck) => rewriteDay(deps, row, whose, scratch, duck));
  } finally {
    await releaseDay(deps.pool, claimed, null).catch(() => undefined);
  }
}

async function rewriteDay(
  deps: TieringDeps,
  row: DayRow,
  { tenantId, userId, receivedBefore }: Whose,
  scratch: string,
  duck: Duck,
): Promise<number> {
  const manifest = row.current?.manifest;
  if (manifest === undefined) return 0;
  const values: string[] = [];
  const bind = (value: string) => `$${values.push(value)}`;
  const theirs = [
    `tenant_id = ${bind(tenantId)}`,
    ...(userId === null ? [] : [`user_id IS NOT DISTINCT FROM ${bind(userId)}`]),
    ...(receivedBefore === undefined
      ? []
      : [`received_at < CAST(${bind(receivedBefore.toISOString().slice(0, -1))} AS TIMESTAMP)`]),
  ].join(' AND ');
  const kept: ManifestFile[] = [];
  const replaced: ManifestFile[] = [];
  const removed = { rows: 0, tokens_consumed: 0n, duration_ms: 0n };
  let next = await nextPart(deps, row.day);
  for (const file of manifest.files) {
    const [old, path] = [join(scratch, 'old.parquet'), join(scratch, 'new.parquet')];
    await fetchFile(deps.store, file, old);
    const before = removed.rows;
    for await (const rows of duck.stream(`SELECT data FROM ${filesOf([old])} WHERE ${theirs}`, values))
      for (const { data } of rows) {
        const found = SUMMED.exec(String(data))?.groups;
        removed.rows++;
        removed.duration_ms += scaled(found?.duration_ms ?? '0');
        removed.tokens_consumed += scaled(found?.tokens_consumed ?? '0');
      }
    if (removed.rows === before) {
      kept.push(file);
      continue;
    }
    replaced.push(file);
    if (removed.rows - before === file.rows) continue;
    const others = `SELECT * FROM ${filesOf([old])} WHERE NOT (${bound(theirs, values)}) ${IN_ORDER}`;
    await writeParquet(duck, others, path, deps.settings.zstdLevel);
    const totals = await readFiles(duck, [path]);
    if (totals.rows !== file.rows - (removed.rows - before))
      throw new TidemarkError(
        'archive_damaged',
        `${file.key}: the file without the erased rows has other rows missing`,
      );
    const key = partKey(row.day, next++);
    const part = { path, ...(await digestOf(path)) };
    await putPart(deps, key, part);
    const { first, last } = totals;
    kept.push({
      ...file,
      key,
      rows: totals.rows,
      bytes: part.bytes,
      sha256: part.sha256,
      first: first ?? file.first,
      last: last ?? file.last,
    });
    await rm(path, { force: true });
  }
  if (removed.rows === 0) return 0;
  const gone: Record<string, TenantTotals> = {
    [tenantId]: {
      customer_id: manifest.tenants[tenantId]?.customer_id ?? '',
      rows: removed.rows,
      tokens_consumed: unscaled(removed.tokens_consumed),
      duration_ms: unscaled(removed.duration_ms),
    },
  };
  const signed = sign({
    ...summed(manifest, kept),
    ...successionOf(row, deps.now()),
    tenants: addTenants(manifest.tenants, gone, -1),
  });
  const stored = await putManifest(deps, row, signed);
  await setCurrent(deps.pool, row, stored);
  // Others of the day may be held.
  await tagHeld(deps, stored.manifest);
  for (const { key } of replaced) await deps.store.delete(key);
  return removed.rows;
}

/** COPY takes no parameters. */
const bound = (condition: string, values: readonly string[]): string =>
  condition.replace(/\$(\d)/g, (_, n: string) => literal(values[Number(n) - 1] ?? ''));

/** By the same search that everybody uses. @throws Error when something is still found */
async function requireForgotten(deps: TieringDeps, { tenantId, userId }: EraseRequest): Promise<void> {
  const { rows } = await deps.pool.query(
    'SELECT 1 FROM events WHERE tenant_id = $1 AND ($2::text IS NULL OR user_id = $2) LIMIT 1',
    [tenantId, userId],
  );
  const reader = openArchiveReader({ ...deps, scratch: join(deps.scratch, 'erasure') });
  try {
    const far = { from: 0, to: Date.UTC(2200, 0, 1) };
    const found = await reader.search({ tenantIds: [tenantId], userId: userId ?? undefined, ...far }, 1);
    let letters = 0;
    for await (const ids of findDeadLetters(deps.pool, { tenantId, userId })) letters += ids.length;
    if (rows.length + found.length + letters > 0) throw new Error('events came in meanwhile: run the erasure again');
  } finally {
    await reader.close();
  }
}
