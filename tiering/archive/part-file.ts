import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import type { DuckDBValue } from '@duckdb/node-api';
import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { copyOutOf } from '../../sinks/index.ts';
import { type Duck, files, literal } from '../duckdb.ts';
import type { TenantTotals } from '../manifest.ts';
import { readSum } from './exact-sum.ts';
import { archivedRows, DIFFERS, FILE_COLUMNS, IN_ORDER, SPOOL_COLUMNS, sumsOf, totalsOf } from './row-sql.ts';

/** Rows of a row group: what statistics prune by. */
const ROW_GROUP = 100_000;

/** What some rows add up to. */
export interface Totals {
  rows: number;
  first: number | null;
  last: number | null;
  /** sum of hashes of rows: of this version of DuckDB, never stored */
  hash: bigint;
  /** rows by tenant */
  tenants: Map<string, number>;
}

/** What a spool adds up to. */
export interface SpoolTotals extends Totals {
  /** by tenant's UUID */
  sums: Record<string, TenantTotals>;
}

/** Rows of a COPY in a file. */
export interface Spool {
  path: string;
  rows: number;
  /** of its bytes as they came */
  crc: number;
}

/**
 * Streams the answer of a COPY into a file; memory is a mebibyte and some socket buffers.
 * @param sql a COPY … TO STDOUT made of constants
 */
export async function spool(pool: Pool, sql: string, path: string, signal: AbortSignal): Promise<Spool> {
  const client = await pool.connect();
  const file = await open(path, 'w');
  let broken: Error | undefined;
  try {
    // Workers would make rows that one process has to send: more work in all, and more of it at once.
    await client.query('BEGIN READ ONLY; SET LOCAL max_parallel_workers_per_gather = 0');
    let crc = 0;
    const write = (bytes: Buffer) => {
      crc = crc32(bytes, crc);
      return file.appendFile(bytes);
    };
    const rows = await copyOutOf(client, sql, write, signal);
    await client.query('COMMIT');
    return { path, rows, crc };
  } catch (error) {
    // A COPY that was broken off leaves the connection in the middle of it.
    broken = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    client.release(broken);
    await file.close();
  }
}

/** @throws TidemarkError `archive_damaged` unless the file still holds what came */
async function requireIntact({ path, crc }: Spool): Promise<void> {
  let found = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) found = crc32(chunk, found);
  if (found !== crc) throw new TidemarkError('archive_damaged', DIFFERS);
}

/** A spool as DuckDB reads it; what PostgreSQL escaped is still escaped. */
const read = (path: string): string =>
  `read_csv(${literal(path)}, header = false, auto_detect = false, delim = '\t', quote = '', escape = '', nullstr = '\\N', new_line = '\\n',
    max_line_size = 1048576, buffer_size = 8388608, columns = {${Object.entries(SPOOL_COLUMNS)
      .map(([name, type]) => `${name}: '${type}'`)
      .join(', ')}})`;

/** @throws TidemarkError `archive_damaged` when a row is not what PostgreSQL sent */
async function whole<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    // Without DuckDB's message: it holds the row.
    const isDifferent = error instanceof Error && /^(Invalid Input|Conversion) Error/.test(error.message);
    throw isDifferent ? new TidemarkError('archive_damaged', DIFFERS) : error;
  }
}

/** What a spool holds, without a copy of it in memory. @throws TidemarkError `archive_damaged` when a row is not what PostgreSQL sent */
export async function readSpool(duck: Duck, spooled: Spool): Promise<Totals> {
  const totals = toTotals(await whole(duck.rows(totalsOf(`(${archivedRows(read(spooled.path))})`))));
  await requireIntact(spooled);
  return totals;
}

/**
 * Runs `work` with what a spool adds up to, while its rows stand in DuckDB's table `part`, sorted by tenant and time.
 * @throws TidemarkError `archive_damaged` when a row is not what PostgreSQL sent
 */
export async function withSpool<T>(duck: Duck, spooled: Spool, work: (totals: SpoolTotals) => Promise<T>): Promise<T> {
  try {
    await whole(duck.run(`CREATE TABLE part AS ${archivedRows(read(spooled.path))} ${IN_ORDER}`));
    await requireIntact(spooled);
    const sums: Record<string, TenantTotals> = {};
    for (const row of await duck.rows(sumsOf('part')))
      sums[String(row.tenant_id)] = {
        customer_id: String(row.customer_id),
        rows: Number(row.rows),
        tokens_consumed: readSum(row, 'tokens_consumed'),
        duration_ms: readSum(row, 'duration_ms'),
      };
    return await work({ ...toTotals(await duck.rows(totalsOf('part'))), sums });
  } finally {
    await duck.run('DROP TABLE IF EXISTS part');
  }
}

/** Writes the rows of `withSpool` as one Parquet file. */
export const writePart = (duck: Duck, path: string, zstdLevel: number): Promise<void> =>
  writeParquet(duck, `SELECT ${FILE_COLUMNS} FROM part`, path, zstdLevel);

/** @param sql a SELECT of the archive's columns, in order */
export const writeParquet = (duck: Duck, sql: string, path: string, zstdLevel: number): Promise<void> =>
  duck.run(
    `COPY (${sql}) TO ${literal(path)}
     (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL ${zstdLevel}, ROW_GROUP_SIZE ${ROW_GROUP}, PARQUET_VERSION v2)`,
  );

/** What Parquet files hold. */
export const readFiles = async (duck: Duck, paths: readonly string[]): Promise<Totals> =>
  toTotals(paths.length === 0 ? [] : await duck.rows(totalsOf(files(paths))));

function toTotals(rows: readonly Record<string, DuckDBValue>[]): Totals {
  const totals = noTotals();
  for (const row of rows) {
    const of = (name: string) => String(row[name] ?? 0);
    addTotals(totals, {
      rows: Number(of('rows')),
      first: Number(of('first')),
      last: Number(of('last')),
      hash: BigInt(of('row_hash')),
      tenants: new Map([[of('tenant_id'), Number(of('rows'))]]),
    });
  }
  return totals;
}

export const noTotals = (): Totals => ({ rows: 0, first: null, last: null, hash: 0n, tenants: new Map() });

/** Adds `more` to `totals`. */
export function addTotals(totals: Totals, more: Totals): void {
  totals.rows += more.rows;
  totals.hash += more.hash;
  if (more.first !== null) totals.first = Math.min(totals.first ?? more.first, more.first);
  if (more.last !== null) totals.last = Math.max(totals.last ?? more.last, more.last);
  for (const [id, rows] of more.tenants) totals.tenants.set(id, (totals.tenants.get(id) ?? 0) + rows);
}

export const areEqual = (a: Totals, b: Totals): boolean =>
  a.rows === b.rows &&
  a.first === b.first &&
  a.last === b.last &&
  a.hash === b.hash &&
  a.tenants.size === b.tenants.size &&
  [...a.tenants].every(([id, rows]) => b.tenants.get(id) === rows);

/** SHA-256 of a file, hex, and its length. */
export async function digestOf(path: string): Promise<{ sha256: string; bytes: number }> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return { sha256: hash.digest('hex'), bytes: (await stat(path)).size };
}
