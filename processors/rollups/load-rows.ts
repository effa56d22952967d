import type { ClientBase, Pool } from 'pg';
import { decimalFrom } from '../../metering/index.ts';
import type { RowTexts } from './coarse-rows.ts';
import type { Row } from './row.ts';

/**
 * Numeric and bigint as text: exact. LIMIT keeps the planner from joining the other way round: by the statistics of a
 * fresh chunk it holds few rows, so it read them all and searched the thousands asked for once for each.
 */
const LOAD = (table: 'rollups_minute' | 'rollups_hour') => `
  SELECT k.i::int AS i, r.count::text AS count, r.sum::text AS sum, r.min::text AS min, r.max::text AS max, r.last::text AS last,
         (extract(epoch FROM r.last_at) * 1000)::float8 AS last_at, uuid_send(r.last_key) AS last_key, r.bins, r.bin_counts::float8[] AS bin_counts,
         r.levels::text[] AS levels
  FROM unnest($1::int[], $2::uuid[], $3::timestamptz[], $4::uuid[]) WITH ORDINALITY AS k(meter_id, tenant_id, bucket, group_key, i),
  LATERAL (
    SELECT * FROM ${table} AS r
    WHERE r.meter_id = k.meter_id AND r.tenant_id = k.tenant_id AND r.bucket = k.bucket AND r.group_key = k.group_key
      AND r.shard = $5 AND r.bucket BETWEEN $6 AND $7
    LIMIT 1
  ) AS r`;

interface StoredRow extends Omit<RowTexts, 'last_key'> {
  i: number;
  last_key: Buffer | null;
  bins: number[] | null;
  bin_counts: number[] | null;
  levels: string[] | null;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex');

/**
 * Adds to cold rows what the database has of them, so that they can be written as absolute values.
 * The caller owns the shard: nobody else changes these rows.
 */
export async function loadRows(
  client: ClientBase | Pool,
  shard: number,
  table: 'rollups_minute' | 'rollups_hour',
  rows: readonly Row[],
): Promise<void> {
  // Distinct values are appended, never rewritten: their rows have no base.
  const cold = rows.filter((row) => !row.based && row.series.meter.meter.aggregation !== 'UNIQUE_COUNT');
  if (cold.length > 0) {
    let first = Number.POSITIVE_INFINITY;
    let last = Number.NEGATIVE_INFINITY;
    for (const { bucket } of cold) {
      if (bucket < first) first = bucket;
      if (bucket > last) last = bucket;
    }
    const { rows: stored } = await client.query<StoredRow>({
      name: `load_${table}`,
      text: LOAD(table),
      values: [
        cold.map((row) => row.series.meter.meter.id),
        cold.map((row) => hex(row.series.tenantId)),
        cold.map((row) => new Date(row.bucket).toISOString()),
        cold.map((row) => hex(row.series.groupKey)),
        shard,
        new Date(first),
        new Date(last),
      ],
    });
    for (const found of stored) {
      const row = cold[found.i - 1];
      if (row !== undefined) addStored(row, found);
    }
  }
  for (const row of rows) row.based = true;
}

function addStored(row: Row, stored: StoredRow): void {
  row.stored = true;
  row.count += Number(stored.count);
  if (stored.sum !== null) row.addSum(decimalFrom(stored.sum));
  if (stored.min !== null && stored.max !== null) row.addExtremes(decimalFrom(stored.min), decimalFrom(stored.max));
  if (stored.last !== null && stored.last_at !== null && stored.last_key !== null)
    row.addLast(decimalFrom(stored.last), stored.last_at, stored.last_key, 0);
  if (stored.bins !== null && stored.levels !== null) {
    const isGauge = row.series.meter.meter.valueKind === 'gauge';
    for (const [i, text] of stored.levels.entries()) {
      const offset = stored.bins[i] as number;
      if (isGauge) row.addReport(decimalFrom(text), offset);
      else row.addChange(decimalFrom(text), offset);
    }
  }
  if (stored.bins !== null && stored.bin_counts !== null)
    for (let i = 0; i < stored.bins.length; i++) row.addBin(stored.bins[i] as number, stored.bin_counts[i] as number);
}
