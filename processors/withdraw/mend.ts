import type { ClientBase, Pool } from 'pg';
import { type Meter, uuidOf } from '../../schemas/index.ts';
import { type Cut, millisecondsOf, shareOf } from '../backfill/index.ts';
import { isHoursOnly, Recount } from '../recount/count.ts';
import { CardinalityGuard, writeOverflows } from '../rollups/cardinality.ts';
import { type Cell, cellKey, HOUR, MINUTE, type Rollups } from '../rollups/rollups.ts';
import { cellValues, deleteCells, encodeRollups, newRollupWrites, writeRollups } from '../rollups/write-rows.ts';
import { dateOf, startOfDay } from '../utc-day.ts';
import type { Withdrawal } from './withdrawal.ts';

/** An hour of a tenant that a meter's backfill has counted. */
export interface Place {
  meterId: number;
  /** the UUID's 16 bytes */
  tenantId: Uint8Array;
  hour: number;
  /** of the withdrawal of one event in it */
  offset: number;
}

/** Raw events that a cell was counted from are gone (archived): it can't be counted anew without them. */
export class RawIncomplete extends Error {
  override name = 'RawIncomplete';
  /** offsets of the withdrawals that would need it */
  readonly offsets: readonly number[];

  constructor(message: string, offsets: readonly number[]) {
    super(message);
    this.offsets = offsets;
  }
}

const COUNTS = (table: string) => `
  SELECT k.i::int AS i, sum(r.count)::float8 AS count
  FROM unnest($1::int[], $2::uuid[], $3::timestamptz[]) WITH ORDINALITY AS k(meter_id, tenant_id, bucket, i)
  JOIN ${table} AS r USING (meter_id, tenant_id, bucket)
  WHERE r.shard = $4 AND r.bucket BETWEEN $5 AND $6 GROUP BY 1`;

/**
 * Holds recounted cells against what is stored: as many events as before, less the withdrawn ones.
 * @throws {RawIncomplete}
 */
export async function checkCells(
  pool: Pool,
  shard: number,
  rollups: Rollups,
  meters: readonly Meter[],
  cells: readonly (Cell & { withdrawn: readonly Withdrawal[] })[],
): Promise<void> {
  // Distinct values don't know how many events they came from.
  const distinct = new Set(meters.filter((one) => one.aggregation === 'UNIQUE_COUNT').map((one) => one.id));
  const checked = cells.filter((cell) => !distinct.has(cell.meterId));
  for (const [isHour, own] of Map.groupBy(checked, (cell) => cell.isHour)) {
    const { rows } = await pool.query<{ i: number; count: number }>(
      COUNTS(isHour ? 'rollups_hour' : 'rollups_minute'),
      cellValues(shard, own),
    );
    const stored = new Map(rows.map((row) => [row.i - 1, row.count]));
    for (const [i, cell] of own.entries()) {
      const left = rollups.cleared.get(cellKey(cell.meterId, cell.tenantId, cell.bucket, isHour))?.count ?? 0;
      if (left + cell.withdrawn.length !== (stored.get(i) ?? 0))
        throw new RawIncomplete(
          `meter ${cell.meterId} at ${new Date(cell.bucket).toISOString()}: ${stored.get(i) ?? 0} events counted, ${left} left, ${cell.withdrawn.length} withdrawn`,
          cell.withdrawn.map((one) => one.offset),
        );
    }
  }
}

const LOCK = `
  SELECT c.meter_id, c.cut::float8 AS cut, o.shard AS twin,
    CASE WHEN c.finished_at IS NOT NULL THEN 'infinity'::float8 ELSE ${millisecondsOf('c.backfilled_until')} END AS until
  FROM meter_cuts AS c LEFT JOIN log_offsets AS o ON o.topic = 'backfill' AND o.partition = c.shard
  WHERE c.shard = $1 AND c.meter_id = ANY ($2::int[]) ORDER BY c.meter_id FOR UPDATE OF c`;

/**
 * Stops the backfill of these meters on this shard until the transaction ends, so that it is known which hours it has
 * counted. The transaction must hold no lock yet that a step of it waits for.
 */
export async function lockBackfill(
  client: ClientBase,
  shard: number,
  places: readonly Place[],
  meters: readonly Meter[],
): Promise<Cut[]> {
  if (places.length === 0) return [];
  const { rows } = await client.query<{ meter_id: number; cut: number; twin: number | null; until: number }>(LOCK, [
    shard,
    [...new Set(places.map((place) => place.meterId))],
  ]);
  return rows.flatMap(({ meter_id: id, cut, twin, until }) => {
    const meter = meters.find((one) => one.id === id);
    return meter === undefined || twin === null ? [] : [{ meter, shard, cut, twin, backfilledUntil: until }];
  });
}

/**
 * Counts hours that the backfill has counted anew, without what is withdrawn; those ahead of it, it will count so.
 * @throws {RawIncomplete}
 */
export async function mendBackfilled(
  client: ClientBase,
  cuts: readonly Cut[],
  places: readonly Place[],
  groupsMax: number,
): Promise<void> {
  const byHour = Map.groupBy(places, (place) => cellKey(place.meterId, place.tenantId, place.hour, true));
  for (const same of byHour.values()) {
    const [place] = same;
    const cut = cuts.find((one) => one.meter.id === place?.meterId);
    if (place === undefined || cut === undefined || place.hour >= cut.backfilledUntil) continue;
    if (await isPassedBy(client, cut, place.hour)) continue;
    const before = await countedIn(client, cut, place);
    const cell = { meterId: place.meterId, tenantId: place.tenantId };
    const cells: Cell[] = [{ ...cell, bucket: place.hour, isHour: true }];
    for (let at = place.hour; at < place.hour + HOUR; at += MINUTE) cells.push({ ...cell, bucket: at, isHour: false });
    await deleteCells(client, cut.twin, cells);
    const recount = new Recount([shareOf(cut)], {
      from: place.hour,
      to: place.hour + HOUR,
      hoursOnly: await isHoursOnly(client, startOfDay(place.hour)),
      tenantId: uuidOf(place.tenantId),
    });
    await recount.readStored(client, cut.shard);
    const rollups = recount.counted[0]?.rollups;
    if (rollups === undefined) continue;
    const overflows = await new CardinalityGuard(groupsMax).fold(rollups, client, async () => undefined);
    await writeOverflows(client, cut.twin, overflows);
    const left = rollups.touched.reduce((sum, row) => sum + (row.isHour ? row.count : 0), 0);
    if (cut.meter.aggregation !== 'UNIQUE_COUNT' && left + same.length !== before)
      throw new RawIncomplete(
        `meter ${place.meterId} at ${new Date(place.hour).toISOString()}: ${before} events counted, ${left} left, ${same.length} withdrawn`,
        same.map((one) => one.offset),
      );
    const writes = newRollupWrites();
    encodeRollups(rollups, cut.twin, 0, writes);
    await writeRollups(client, cut.twin, writes);
  }
}

/** The backfill has left the hour's day for later: it will count it without what is withdrawn. */
async function isPassedBy(client: ClientBase, { meter, shard }: Cut, hour: number): Promise<boolean> {
  const { rows } = await client.query(
    'SELECT FROM meter_gaps WHERE meter_id = $1 AND shard = $2 AND day = $3 AND counted_until <= $4',
    [meter.id, shard, dateOf(hour), new Date(hour)],
  );
  return rows.length > 0;
}

/** Events in the backfilled hour row of a place, all groups. */
async function countedIn(client: ClientBase, { twin }: Cut, { meterId, tenantId, hour }: Place): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `SELECT coalesce(sum(count), 0)::float8 AS count FROM rollups_hour
     WHERE meter_id = $1 AND tenant_id = $2 AND bucket = $3 AND shard = $4`,
    [meterId, uuidOf(tenantId), new Date(hour), twin],
  );
  return rows[0]?.count ?? 0;
}
