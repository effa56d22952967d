import type { DuckDBValue } from '@duckdb/node-api';
import { scaled, unscaled } from '../manifest.ts';

/**
 * DuckDB: the exact sum of a column of decimal literals (at most 20 digits before the point, 18 behind it), as three columns.
 * What is short is a 64-bit decimal; the rest is added up before and behind the point, where no number of rows is too many.
 */
export function exactSum(column: string, name: string): string {
  const short = `strlen(${column}) <= 10`;
  const whole = `split_part(${column}, '.', 1)`;
  const behind = `(CASE WHEN ${column}[1] = '-' THEN '-' ELSE '' END || rpad(split_part(${column}, '.', 2), 18, '0'))`;
  return `sum(CASE WHEN ${short} THEN CAST(${column} AS DECIMAL(18, 8)) END)::VARCHAR AS ${name}_short,
    sum(CASE WHEN NOT (${short}) THEN CAST(${whole} AS HUGEINT) END)::VARCHAR AS ${name}_whole,
    sum(CASE WHEN NOT (${short}) THEN CAST(${behind} AS BIGINT) END)::VARCHAR AS ${name}_behind`;
}

/** The sum that such a row holds: a decimal literal. */
export function readSum(row: Readonly<Record<string, DuckDBValue>>, name: string): string {
  const of = (part: string) => String(row[`${name}_${part}`] ?? '0');
  return unscaled(scaled(of('short')) + scaled(of('whole')) + BigInt(of('behind')));
}
