import type { ClientBase } from 'pg';
import type { ExactSum } from '../../metering/index.ts';
import { uuidOf } from '../../schemas/index.ts';
import { BinaryCopy, copyInto } from '../../sinks/index.ts';
import { markStale } from './fold-coarse.ts';
import type { Cell, Rollups } from './rollups.ts';
import type { Row, Series } from './row.ts';

const COLUMNS =
  'bucket, meter_id, shard, tenant_id, group_key, count, last_at, last_key, sum, min, max, last, bins, bin_counts, levels';
const COLUMN_COUNT = 15;
const KEY = 'meter_id, tenant_id, bucket, group_key, shard';
const MEMBER_COLUMNS = 'bucket, batch, meter_id, shard, tenant_id, group_key, members';

const UPSERT = (table: string, staged: string) => `
  INSERT INTO ${table} (${COLUMNS}) SELECT ${COLUMNS} FROM ${staged}
  ON CONFLICT (${KEY}) DO UPDATE SET
    count = excluded.count, last_at = excluded.last_at, last_key = excluded.last_key, sum = excluded.sum, min = excluded.min,
    max = excluded.max, last = excluded.last, bins = excluded.bins, bin_counts = excluded.bin_counts,
    levels = excluded.levels`;

const DELETE = (table: string) => `
  DELETE FROM ${table} AS r USING unnest($1::int[], $2::uuid[], $3::timestamptz[]) AS k(meter_id, tenant_id, bucket)
  WHERE r.meter_id = k.meter_id AND r.tenant_id = k.tenant_id AND r.bucket = k.bucket AND r.shard = $4 AND r.bucket BETWEEN $5 AND $6`;

/** Session tables for rows that exist already; emptied at each commit. */
export const CREATE_STAGING = `
  CREATE TEMP TABLE IF NOT EXISTS staged_minute (LIKE rollups_minute) ON COMMIT DELETE ROWS;
  CREATE TEMP TABLE IF NOT EXISTS staged_hour (LIKE rollups_hour) ON COMMIT DELETE ROWS`;

const INSERT_GROUPS = `
  INSERT INTO rollup_groups (group_key, tenant_id, meter_id, values)
  SELECT (g->>'k')::uuid, (g->>'t')::uuid, (g->>'m')::int, ARRAY(SELECT v FROM jsonb_array_elements_text(g->'v') WITH ORDINALITY AS e(v, i) ORDER BY i)
  FROM jsonb_array_elements($1::jsonb) AS g
  ORDER BY 1
  ON CONFLICT (group_key) DO NOTHING`;

/** The rollup side of one batch, encoded: it no longer changes when the next batch does. */
export interface RollupWrites {
  rows: number;
  /** times of all chunks needed, Unix ms */
  minutes: Set<number>;
  hours: Set<number>;
  /** whose stored rows go before the others are written */
  cleared: readonly Cell[];
  /** JSON for new groups, or null */
  groups: string | null;
  freshMinutes: BinaryCopy;
  changedMinutes: BinaryCopy;
  freshHours: BinaryCopy;
  changedHours: BinaryCopy;
  minuteMembers: BinaryCopy;
  hourMembers: BinaryCopy;
}

export function newRollupWrites(): RollupWrites {
  return {
    rows: 0,
    minutes: new Set(),
    hours: new Set(),
    cleared: [],
    groups: null,
    freshMinutes: new BinaryCopy(),
    changedMinutes: new BinaryCopy(),
    freshHours: new BinaryCopy(),
    changedHours: new BinaryCopy(),
    minuteMembers: new BinaryCopy(),
    hourMembers: new BinaryCopy(),
  };
}

/** Encodes the absolute values of all touched rows into `into` (emptied first). Every row must have its base. */
export function encodeRollups(rollups: Rollups, shard: number, batch: number, into: RollupWrites): void {
  const { freshMinutes, changedMinutes, freshHours, changedHours, minuteMembers, hourMembers } = into;
  for (const copy of [freshMinutes, changedMinutes, freshHours, changedHours, minuteMembers, hourMembers]) copy.reset();
  into.rows = rollups.touched.length;
  into.minutes.clear();
  into.hours.clear();
  // A tenant's rows stand on few pages of the primary key: together they find them in the processor's cache (5.7 → 4.5 µs a row).
  for (const rows of Map.groupBy(rollups.touched, (row) => row.series.tenantIndex).values())
    for (const row of rows) encodeRow(rollups, row, shard, batch, into);
  into.cleared = [...rollups.cleared.values()];
  for (const { isHour, bucket } of into.cleared) (isHour ? into.hours : into.minutes).add(bucket);
  into.groups = encodeGroups(rollups.newSeries);
  rollups.endBatch();
}

function encodeRow(rollups: Rollups, row: Row, shard: number, batch: number, into: RollupWrites): void {
  const { isHour } = row;
  (isHour ? into.hours : into.minutes).add(row.bucket);
  if (row.members !== null) {
    if (row.fresh.length === 0) return;
    const members = row.fresh.map((id) => rollups.memberText(id));
    row.fresh = [];
    writeMembers(isHour ? into.hourMembers : into.minuteMembers, row, shard, batch, members);
    return;
  }
  if (row.stored) writeRow(isHour ? into.changedHours : into.changedMinutes, row, shard);
  else writeRow(isHour ? into.freshHours : into.freshMinutes, row, shard);
  row.stored = true;
}

function encodeGroups(series: readonly Series[]): string | null {
  const unknown = series.filter((one) => !one.known);
  if (unknown.length === 0) return null;
  for (const one of unknown) one.known = true;
  return JSON.stringify(
    unknown.map((one) => ({
      k: Buffer.from(one.groupKey).toString('hex'),
      t: Buffer.from(one.tenantId).toString('hex'),
      m: one.meter.meter.id,
      v: one.values,
    })),
  );
}

function writeRow(copy: BinaryCopy, row: Row, shard: number): void {
  copy.row(COLUMN_COUNT);
  copy.timestamptz(row.bucket);
  copy.int4(row.series.meter.meter.id);
  copy.int4(shard);
  copy.uuid(row.series.tenantId, 0);
  copy.uuid(row.series.groupKey, 0);
  copy.int8(row.count);
  if (row.last === null) copy.null();
  else copy.timestamptz(row.lastAt);
  if (row.lastKey === null) copy.null();
  else copy.uuid(row.lastKey, 0);
  optionalNumeric(copy, row.sum);
  optionalNumeric(copy, row.min);
  optionalNumeric(copy, row.max);
  optionalNumeric(copy, row.last);
  if (row.levels !== null) {
    copy.int4Array(row.levels.offsets, row.levels.length);
    copy.null();
    copy.numericArray(row.levels.values, row.levels.length);
    return;
  }
  if (row.bins === null) {
    copy.null();
    copy.null();
  } else {
    copy.int4Array(row.bins.keys, row.bins.length);
    copy.int8Array(row.bins.counts, row.bins.length);
  }
  copy.null();
}

function optionalNumeric(copy: BinaryCopy, value: ExactSum | null): void {
  if (value === null) copy.null();
  else copy.numeric(value);
}

function writeMembers(copy: BinaryCopy, row: Row, shard: number, batch: number, members: readonly string[]): void {
  copy.row(7);
  copy.timestamptz(row.bucket);
  copy.int8(batch);
  copy.int4(row.series.meter.meter.id);
  copy.int4(shard);
  copy.uuid(row.series.tenantId, 0);
  copy.uuid(row.series.groupKey, 0);
  copy.textArray(members);
}

/** Writes what `encodeRollups` made, within the caller's transaction. */
export async function writeRollups(client: ClientBase, shard: number, writes: RollupWrites): Promise<void> {
  if (writes.cleared.length > 0) await deleteCells(client, shard, writes.cleared);
  if (writes.groups !== null)
    await client.query({ name: 'insert_groups', text: INSERT_GROUPS, values: [writes.groups] });
  await copyRows(client, `rollups_minute (${COLUMNS})`, writes.freshMinutes);
  await upsertRows(client, 'rollups_minute', 'staged_minute', writes.changedMinutes);
  await copyRows(client, `rollups_hour (${COLUMNS})`, writes.freshHours);
  await upsertRows(client, 'rollups_hour', 'staged_hour', writes.changedHours);
  await copyRows(client, `members_minute (${MEMBER_COLUMNS})`, writes.minuteMembers);
  await copyRows(client, `members_hour (${MEMBER_COLUMNS})`, writes.hourMembers);
  await markStale(client, shard, writes.hours);
}

/** Deletes the rows of cells, all groups. */
export async function deleteCells(client: ClientBase, shard: number, cells: readonly Cell[]): Promise<void> {
  for (const [isHour, own] of Map.groupBy(cells, (cell) => cell.isHour)) {
    for (const table of isHour ? ['rollups_hour', 'members_hour'] : ['rollups_minute', 'members_minute'])
      await client.query(DELETE(table), cellValues(shard, own));
    if (isHour) await markStale(client, shard, new Set(own.map((cell) => cell.bucket)));
  }
}

/** Keys of cells as bound values: meters, tenants, buckets, the shard, the first bucket and the last. */
export function cellValues(shard: number, cells: readonly Cell[]): unknown[] {
  const times = cells.map((cell) => cell.bucket);
  return [
    cells.map((cell) => cell.meterId),
    cells.map((cell) => uuidOf(cell.tenantId)),
    times.map((at) => new Date(at).toISOString()),
    shard,
    new Date(Math.min(...times)),
    new Date(Math.max(...times)),
  ];
}

async function copyRows(client: ClientBase, target: string, rows: BinaryCopy): Promise<void> {
  if (rows.rows > 0) await copyInto(client, `COPY ${target} FROM STDIN (FORMAT binary)`, rows.finish());
}

async function upsertRows(client: ClientBase, table: string, staged: string, rows: BinaryCopy): Promise<void> {
  if (rows.rows === 0) return;
  await copyRows(client, `${staged} (${COLUMNS})`, rows);
  await client.query({ name: `upsert_${table}`, text: UPSERT(table, staged) });
}
