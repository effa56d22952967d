import type { ClientBase, Pool } from 'pg';
import type { Meter } from '../../schemas/index.ts';
import type { ArchivedEvents } from '../archived-events.ts';
import { millisecondsOf } from '../backfill/index.ts';
import { dateOf, startOfDay } from '../utc-day.ts';
import { isHoursOnly, leftOutOf, type Share } from './count.ts';

/** What a shard's rows were counted from. */
export interface ShardState {
  /** of the day's archive */
  version: string | undefined;
  hoursOnly: boolean;
  leftOut: string[];
  shares: (Omit<Share, 'meter'> & { meterId: number })[];
}

const STATE = `
  SELECT t.shard AS twin, ${millisecondsOf('o.folded_until')} AS folded,
    coalesce((SELECT jsonb_agg(jsonb_build_object('meterId', c.meter_id, 'cut', c.cut, 'until', ${millisecondsOf('least(c.backfilled_until, g.counted_until)')}) ORDER BY c.meter_id)
      FROM meter_cuts AS c LEFT JOIN meter_gaps AS g ON g.meter_id = c.meter_id AND g.shard = c.shard AND g.day = $2::date
      WHERE c.shard = o.shard AND c.meter_id = ANY ($3::int[])), '[]') AS cuts
  FROM log_offsets AS o LEFT JOIN log_offsets AS t ON t.topic = 'backfill' AND t.partition = o.shard
  WHERE o.shard = $1`;

/** @param builtin meters that are counted from the first event on */
export async function stateOf(
  { archive, meters: builtin }: { archive: ArchivedEvents; meters: readonly Meter[] },
  database: Pool | ClientBase,
  shard: number,
  meters: readonly Meter[],
  from: number,
  to: number,
): Promise<ShardState> {
  const day = startOfDay(from);
  const { rows } = await database.query<{
    twin: number | null;
    folded: number;
    cuts: { meterId: number; cut: number; until: number | 'Infinity' | '-Infinity' }[];
  }>(STATE, [shard, dateOf(day), meters.map((meter) => meter.id)]);
  const [{ twin, folded, cuts } = { twin: null, folded: from, cuts: [] }] = rows;
  const within = (at: number) => Math.min(Math.max(at, from), to);
  const live = { shard, rowShard: shard, until: to, end: Number.MAX_SAFE_INTEGER, foldedUntil: within(folded) };
  const always = new Set(builtin.map((meter) => meter.id));
  return {
    version: await archive.versionOf(database, day),
    hoursOnly: await isHoursOnly(database, day),
    leftOut: [...(await leftOutOf(database, [shard], { from, to }))],
    shares: [
      ...meters.filter((meter) => always.has(meter.id)).map(({ id }) => ({ ...live, meterId: id, first: 0 })),
      // A version without a cut is not counted here yet.
      ...cuts.map(({ meterId, cut }) => ({ ...live, meterId, first: cut })),
      ...cuts
        .filter(({ cut }) => cut > 0 && twin !== null)
        .map(({ meterId, cut, until }) => ({
          shard,
          rowShard: twin ?? shard,
          meterId,
          first: 0,
          end: cut,
          until: within(Number(until)),
          foldedUntil: to,
        })),
    ],
  };
}
