import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import type { DuckDBValue } from '@duckdb/node-api';
import type { PoolClient } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { type Duck, files, literal } from '../duckdb.ts';
import { ARCHIVED, CSV_COLUMNS, fileTotals, spoolTotals } from './row-sql.ts';

/** Rows of a row group: what statistics prune by. */
const ROW_GROUP = 100_000;

/** What some rows add up to. */
export interface Totals {
  rows: number;
  first: number | null;
  last: number | null;
  /** sum of hashes of rows: of this version of DuckDB, never stored */
  hash: bigint;
  /** sum of row checks; 0 of Parquet files */
  check: bigint;
  /** rows by tenant */
  tenants: Map<string, number>;
}

/**
 * Streams the answer of a COPY into a file; memory is a few socket buffers.
 * @param sql a COPY … TO STDOUT made of constants @returns rows
 */
export async function spool(client: PoolClient, sql: string, path: string, signal: AbortSignal): Promise<number> {
  const stream = client.query(copyTo(sql));
  await pipeline(stream, createWriteStream(path, { highWaterMark: 1 << 20 }), { signal });
  return stream.rowCount;
}

/** A spooled CSV as DuckDB reads it; NULL is the bare nothing, an empty text is quoted. */
const csv = (path: string): string =>
  `read_csv(${literal(path)}, header = false, auto_detect = false, delim = ',', quote = '"', escape = '"', nullstr = '', allow_quoted_nulls = false, new_line = '\\n',
    max_line_size = 1048576, buffer_size = 8388608, columns = {${Object.entries(CSV_COLUMNS)
      .map(([name, type]) => `${name}: '${type}'`)
      .join(', ')}})`;

/** Sorts a spooled CSV by tenant and time into one Parquet file. */
export async function writePart(duck: Duck, from: string, to: string, zstdLevel: number): Promise<void> {
  await duck.run(
    `COPY (SELECT ${ARCHIVED} FROM ${csv(from)} ORDER BY tenant_id, "timestamp", log_partition, log_offset) TO ${literal(to)}
     (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL ${zstdLevel}, ROW_GROUP_SIZE ${ROW_GROUP}, PARQUET_VERSION v2)`,
  );
}

/** What a spooled CSV holds. */
export const readSpool = async (duck: Duck, path: string): Promise<Totals> =>
  toTotals(await duck.rows(spoolTotals(csv(path))));

/** What Parquet files hold, without sums. */
export const readFiles = async (duck: Duck, paths: readonly string[]): Promise<Totals> =>
  toTotals(paths.length === 0 ? [] : await duck.rows(fileTotals(files(paths))));

function toTotals(rows: readonly Record<string, DuckDBValue>[]): Totals {
  const totals = noTotals();
  for (const row of rows) {
    const of = (name: string) => String(row[name] ?? 0);
    addTotals(totals, {
      rows: Number(of('rows')),
      first: Number(of('first')),
      last: Number(of('last')),
      hash: BigInt(of('row_hash')),
      check: BigInt(of('row_check')),
      tenants: new Map([[of('tenant_id'), Number(of('rows'))]]),
    });
  }
  return totals;
}

export const noTotals = (): Totals => ({ rows: 0, first: null, last: null, hash: 0n, check: 0n, tenants: new Map() });

/** Adds `more` to `totals`. */
export function addTotals(totals: Totals, more: Totals): void {
  totals.rows += more.rows;
  totals.hash += more.hash;
  totals.check += more.check;
  if (more.first !== null) totals.first = Math.min(totals.first ?? more.first, more.first);
  if (more.last !== null) totals.last = Math.max(totals.last ?? more.last, more.last);
  for (const [id, rows] of more.tenants) totals.tenants.set(id, (totals.tenants.get(id) ?? 0) + rows);
}

/** SHA-256 of a file, hex, and its length. */
export async function digestOf(path: string): Promise<{ sha256: string; bytes: number }> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return { sha256: hash.digest('hex'), bytes: (await stat(path)).size };
}
