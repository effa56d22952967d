import type { ClientBase, Pool } from 'pg';
import type { Meter } from '../../schemas/index.ts';
import { readMeters } from '../../sinks/index.ts';
import type { Share } from '../recount/count.ts';
import { DAY } from '../rollups/rollups.ts';
import { dateOf } from '../utc-day.ts';

/** Rows of a backfill carry shards of this topic; partition = the shard whose events they count. */
export const TWIN_TOPIC = 'backfill';

/** A version of a meter on one shard: what is still to be counted of its past. */
export interface Cut {
  meter: Meter;
  shard: number;
  /** first offset that is counted live */
  cut: number;
  /** Unix ms; -Infinity before the first step, Infinity after the last */
  backfilledUntil: number;
  /** the shard that its rows carry */
  twin: number;
  /** a day that was passed by and is counted now: start, Unix ms; `backfilledUntil` is about this day then */
  gap?: number;
}

export const shareOf = ({ meter, shard, cut, twin }: Cut): Share => ({
  meter,
  shard,
  first: 0,
  end: cut,
  until: Number.POSITIVE_INFINITY,
  rowShard: twin,
  foldedUntil: Number.POSITIVE_INFINITY,
});

/** Unix ms of a timestamptz that may be infinite. */
export const millisecondsOf = (column: string): string =>
  `CASE ${column} WHEN 'infinity' THEN 'infinity'::float8 WHEN '-infinity' THEN '-infinity'::float8 ELSE (extract(epoch FROM ${column}) * 1000)::float8 END`;

const PENDING = `
  SELECT c.meter_id, c.shard, c.cut::float8 AS cut, ${millisecondsOf('c.backfilled_until')} AS until, NULL::float8 AS gap
  FROM meter_cuts AS c JOIN meter_versions AS v ON v.id = c.meter_id
  WHERE c.finished_at IS NULL AND c.backfilled_until < 'infinity' AND v.state IN ('serving', 'next') ORDER BY c.meter_id, c.shard`;
const GAPS = `
  SELECT c.meter_id, c.shard, c.cut::float8 AS cut, ${millisecondsOf('g.counted_until')} AS until,
    (extract(epoch FROM g.day::timestamp AT TIME ZONE 'UTC') * 1000)::float8 AS gap
  FROM meter_gaps AS g JOIN meter_cuts AS c USING (meter_id, shard) JOIN meter_versions AS v ON v.id = c.meter_id
  WHERE v.state IN ('serving', 'next') ORDER BY g.day, c.meter_id, c.shard`;
const TWIN = `
  INSERT INTO log_offsets (topic, partition, folded_until, coarse_until) VALUES ('${TWIN_TOPIC}', $1, '2200-01-01Z', '2200-01-01Z')
  ON CONFLICT (topic, partition) DO NOTHING`;

/** What the marks have not passed yet. */
export const pendingCuts = (pool: Pool): Promise<Cut[]> => readCuts(pool, PENDING);
/** Days that the marks have passed without counting them. */
export const gapsOf = (pool: Pool): Promise<Cut[]> => readCuts(pool, GAPS);

async function readCuts(pool: Pool, text: string): Promise<Cut[]> {
  const { rows } = await pool.query<{
    meter_id: number;
    shard: number;
    cut: number;
    until: number;
    gap: number | null;
  }>(text);
  if (rows.length === 0) return [];
  const meters = new Map<number, Meter>();
  for (const { meter, next } of await readMeters(pool)) {
    meters.set(meter.id, meter);
    if (next !== null) meters.set(next.id, next);
  }
  const twins = new Map<number, number>();
  for (const { shard } of rows) if (!twins.has(shard)) twins.set(shard, await twinOf(pool, shard));
  return rows.flatMap(({ meter_id: id, shard, cut, until, gap }) => {
    const meter = meters.get(id);
    const twin = twins.get(shard);
    if (meter === undefined || twin === undefined) return [];
    return [{ meter, shard, cut, backfilledUntil: until, twin, ...(gap === null ? {} : { gap }) }];
  });
}

/** The shard that backfilled rows of a shard carry; its hours count as folded from the start, and what is written makes them stale. */
async function twinOf(pool: Pool, shard: number): Promise<number> {
  await pool.query(TWIN, [shard]);
  const { rows } = await pool.query<{ shard: number }>(
    `SELECT shard FROM log_offsets WHERE topic = '${TWIN_TOPIC}' AND partition = $1`,
    [shard],
  );
  if (rows[0] === undefined) throw new Error(`shard ${shard} has no twin`);
  return rows[0].shard;
}

const LOCK = `
  SELECT c.meter_id, ${millisecondsOf('c.backfilled_until')} AS until, ${millisecondsOf('g.counted_until')} AS gap_until
  FROM meter_cuts AS c LEFT JOIN meter_gaps AS g ON g.meter_id = c.meter_id AND g.shard = c.shard AND g.day = $3::date
  WHERE c.shard = $1 AND c.meter_id = ANY ($2::int[]) ORDER BY c.meter_id FOR UPDATE OF c`;
const ADVANCE = 'UPDATE meter_cuts SET backfilled_until = $3, events = events + $4 WHERE meter_id = $1 AND shard = $2';
const ADD = 'UPDATE meter_cuts SET events = events + $3 WHERE meter_id = $1 AND shard = $2';

/**
 * Locks cuts of one shard against withdrawals and other runs, for the transaction.
 * @returns those whose mark is still where it was; others have been overtaken by another process
 */
export async function lockCuts(client: ClientBase, shard: number, cuts: readonly Cut[]): Promise<Cut[]> {
  const [gap] = cuts.flatMap((cut) => cut.gap ?? []);
  const { rows } = await client.query<{ meter_id: number; until: number; gap_until: number | null }>(LOCK, [
    shard,
    cuts.map((cut) => cut.meter.id),
    gap === undefined ? null : dateOf(gap),
  ]);
  const marks = new Map(rows.map((row) => [row.meter_id, gap === undefined ? row.until : row.gap_until]));
  return cuts.filter((cut) => marks.get(cut.meter.id) === cut.backfilledUntil);
}

/** Everything before `to` is counted, in the transaction that counts it. */
export async function advance(
  client: ClientBase,
  { meter, shard, gap }: Cut,
  to: number,
  events: number,
): Promise<void> {
  if (gap === undefined) {
    await client.query(ADVANCE, [meter.id, shard, new Date(to), events]);
    return;
  }
  await client.query(ADD, [meter.id, shard, events]);
  const day = dateOf(gap);
  if (to >= gap + DAY)
    await client.query('DELETE FROM meter_gaps WHERE meter_id = $1 AND shard = $2 AND day = $3', [
      meter.id,
      shard,
      day,
    ]);
  else
    await client.query('UPDATE meter_gaps SET counted_until = $4 WHERE meter_id = $1 AND shard = $2 AND day = $3', [
      meter.id,
      shard,
      day,
      new Date(to),
    ]);
}

const PASS = `
  INSERT INTO meter_gaps (meter_id, shard, day, counted_until, reason) VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (meter_id, shard, day) DO NOTHING`;

/** Leaves the rest of a day for later: the mark goes on behind it. */
export async function passBy(client: ClientBase, cut: Cut, day: number, reason: string): Promise<void> {
  const date = dateOf(day);
  const from = new Date(Math.max(day, cut.backfilledUntil));
  if (cut.gap === undefined) {
    await client.query(PASS, [cut.meter.id, cut.shard, date, from, reason]);
    await client.query(ADVANCE, [cut.meter.id, cut.shard, new Date(day + DAY), 0]);
  } else
    await client.query('UPDATE meter_gaps SET reason = $4 WHERE meter_id = $1 AND shard = $2 AND day = $3', [
      cut.meter.id,
      cut.shard,
      date,
      reason,
    ]);
}

/** The mark has passed everything; what is left are days that it passed by. */
export async function finish(pool: Pool, cuts: readonly Cut[]): Promise<void> {
  await pool.query(
    `UPDATE meter_cuts AS c SET backfilled_until = 'infinity' FROM unnest($1::int[], $2::int[], $3::timestamptz[]) AS k(meter_id, shard, until)
     WHERE c.meter_id = k.meter_id AND c.shard = k.shard AND c.backfilled_until = k.until`,
    [
      cuts.map((cut) => cut.meter.id),
      cuts.map((cut) => cut.shard),
      cuts.map((cut) =>
        Number.isFinite(cut.backfilledUntil) ? new Date(cut.backfilledUntil).toISOString() : '-infinity',
      ),
    ],
  );
}

/** Marks that have passed everything and left nothing out are done. */
export const FINISH = `
  UPDATE meter_cuts AS c SET finished_at = now() WHERE finished_at IS NULL AND backfilled_until = 'infinity'
    AND NOT EXISTS (SELECT FROM meter_gaps AS g WHERE g.meter_id = c.meter_id AND g.shard = c.shard)`;
