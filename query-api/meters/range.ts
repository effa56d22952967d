/** How far back a question reaches, and whether what answers it is still kept. */
import { TidemarkError } from '../../schemas/index.ts';
import type { MeterQuery } from './meter-query.ts';
import { type Piece, planPieces } from './plan.ts';
import type { Snapshot } from './snapshot.ts';
import { extentStatement } from './statements.ts';

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;
/** Before any event (`processors/steps/apply.ts` refuses earlier ones). */
const EPOCH = 0;
const END = Date.UTC(2200, 0, 1);

type Asked = Pick<MeterQuery, 'meter' | 'tenantIds' | 'from' | 'to'>;

/** From the first minute that has data to the end of the last, where the query leaves an end open. Unix ms; undefined: nothing. */
export async function rangeOf(snapshot: Snapshot, query: Asked): Promise<{ from: number; to: number } | undefined> {
  if (query.from !== undefined && query.to !== undefined) return { from: query.from, to: query.to };
  const from = query.from ?? (await edgeOf(snapshot, query, 'first'));
  const to = query.to ?? (await edgeOf(snapshot, query, 'last'));
  // An open end before the given start: there is nothing, which is no error.
  return from === undefined || to === undefined || from >= to ? undefined : { from, to };
}

/** First the day, from the coarsest rows there are; then, within it, the minute (or the hour, where minutes are gone). */
async function edgeOf(snapshot: Snapshot, query: Asked, edge: 'first' | 'last'): Promise<number | undefined> {
  const { meter, tenantIds } = query;
  const extent = async (pieces: readonly Piece[]): Promise<number | undefined> => {
    if (pieces.length === 0) return undefined;
    const [row] = await snapshot.all(extentStatement(meter, tenantIds, pieces));
    const found = row?.[edge === 'first' ? 0 : 1];
    return found === null || found === undefined ? undefined : Number(found);
  };
  const plan = { meter, boundaries: [], minutesOnly: false, withoutDays: false, byGroup: false };
  const coarse = await extent(planPieces({ ...plan, from: EPOCH, to: END, byTenant: tenantIds !== null }, snapshot));
  if (coarse === undefined) return undefined;
  const day = Math.floor(coarse / DAY) * DAY;
  const within = { from: day, to: day + DAY, shards: null };
  const isKept = (await daysWithoutMinutes(snapshot, day, day + DAY)).length === 0;
  const minute = isKept ? await extent([{ source: 'minutes', ...within }]) : undefined;
  if (minute !== undefined) return edge === 'first' ? minute : minute + MINUTE;
  const hour = await extent([{ source: 'hours', ...within }]);
  return hour === undefined ? undefined : edge === 'first' ? hour : hour + HOUR;
}

/**
 * Minutes go with the raw events of a day; what came late afterwards has some again. Where an hour with data is to be read by
 * minutes that are gone there is no exact answer.
 * @throws TidemarkError `window_too_fine`
 */
export async function requireMinutes(
  snapshot: Snapshot,
  { meter, tenantIds }: Asked,
  pieces: readonly Piece[],
): Promise<void> {
  const folded = Math.max(Number.NEGATIVE_INFINITY, ...snapshot.shards.map((shard) => shard.foldedUntil));
  const asked = pieces.flatMap(({ source, from, to, shards }): Piece[] => {
    if (source !== 'minutes' || from >= folded) return [];
    return [
      {
        source: 'hours',
        from: Math.floor(from / HOUR) * HOUR,
        to: Math.min(Math.ceil(to / HOUR) * HOUR, folded),
        shards,
      },
    ];
  });
  if (asked.length === 0) return;
  const days = await daysWithoutMinutes(
    snapshot,
    asked.reduce((first, { from }) => Math.min(first, from), Number.POSITIVE_INFINITY),
    asked.reduce((last, { to }) => Math.max(last, to), Number.NEGATIVE_INFINITY),
  );
  const hours = asked.flatMap((piece) =>
    days
      .filter((day) => piece.from < day + DAY && piece.to > day)
      .map((day): Piece => ({ ...piece, from: Math.max(piece.from, day), to: Math.min(piece.to, day + DAY) })),
  );
  if (hours.length === 0) return;
  const [row] = await snapshot.all(extentStatement(meter, tenantIds, hours));
  const hour = row?.[0];
  if (hour === null || hour === undefined) return;
  throw new TidemarkError(
    'window_too_fine',
    `minutes are not kept as far back as ${new Date(Number(hour)).toISOString()}: ask for whole hours`,
  );
}

/** Starts of days in [from, to) whose minutes went with their raw events, Unix ms. */
async function daysWithoutMinutes(snapshot: Snapshot, from: number, to: number): Promise<number[]> {
  const rows = await snapshot.all({
    text: `SELECT (extract(epoch FROM day::timestamp AT TIME ZONE 'UTC') * 1000)::float8 FROM archived_minutes
      WHERE day >= ($1::timestamptz AT TIME ZONE 'UTC')::date AND day <= ($2::timestamptz AT TIME ZONE 'UTC')::date`,
    values: [new Date(from).toISOString(), new Date(to - 1).toISOString()],
  });
  return rows.map(([day]) => Number(day));
}
