import type { Pool } from 'pg';
import { quoteIdentifier } from '../../sinks/index.ts';
import type { DayRow } from '../archive/day-state.ts';
import { endOf, startOf } from '../layout.ts';
import type { TenantTotals } from '../manifest.ts';

/**
 * How many rows `source` has, and the sum of hashes of all of their columns: a row that was changed, removed or added makes
 * another one. Some 2 µs a row; no lock.
 * @param source a table or a query, made of constants
 */
export async function checkOf(
  pool: Pool,
  source: string,
  values: readonly unknown[] = [],
): Promise<{ rows: number; check: string }> {
  const { rows } = await pool.query<{ rows: number; check: string }>(
    `SELECT count(*)::float8 AS rows, coalesce(sum(hashtextextended(e::text, 0)::numeric), 0)::text AS check FROM ${source} AS e`,
    [...values],
  );
  return rows[0] ?? { rows: 0, check: '0' };
}

const BELOW = `(
  SELECT e.* FROM events AS e JOIN unnest($1::int[], $2::bigint[]) AS p(shard, next) ON p.shard = e.shard AND e.log_offset < p.next
  WHERE e."timestamp" >= $3 AND e."timestamp" < $4)`;

/**
 * Whether a day that is back holds what came back, whatever came late beside it. A day without any row of its own left the
 * database behind our back: its files stay what they are.
 */
export async function isUnchanged(pool: Pool, { day, recalled, current }: DayRow): Promise<boolean> {
  if (recalled === undefined || current === undefined) return true;
  const { positions } = current.manifest;
  const found = await checkOf(pool, BELOW, [
    positions.map((one) => one.shard),
    positions.map((one) => one.next),
    new Date(startOf(day)),
    new Date(endOf(day)),
  ]);
  return found.rows === 0 || (found.rows === recalled.rows && found.check === recalled.check);
}

/** Rows and sums of a table with the columns of the raw events, by tenant. */
export async function totalsOf(pool: Pool, table: string): Promise<Record<string, TenantTotals>> {
  const { rows } = await pool.query<TenantTotals & { tenant_id: string }>(
    `SELECT tenant_id, '' AS customer_id, count(*)::float8 AS rows, coalesce(sum(tokens_consumed), 0)::text AS tokens_consumed,
       coalesce(sum(duration_ms), 0)::text AS duration_ms FROM ${quoteIdentifier(table)} GROUP BY 1`,
  );
  return Object.fromEntries(rows.map(({ tenant_id: id, ...totals }) => [id, totals]));
}
