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
  const coarse = await extent(
    planPieces({ ...plan, from: EPOCH, to: END, byTenant: tenantIds !== null }, snapshot.shards),
  );
  if (coarse === undefined) return undefined;
  const day = Math.floor(coarse / DAY) * DAY;
  const within = { from: day, to: day + DAY, shards: null };
  const minute = await extent([{ source: 'minutes', ...within }]);
  if (minute !== undefined) return edge === 'first' ? minute : minute + MINUTE;
  const hour = await extent([{ source: 'hours', ...within }]);
  return hour === undefined ? undefined : edge === 'first' ? hour : hour + HOUR;
}

/**
 * Minutes may be gone where hours are kept: the first folded hour that is to be read by minutes must have them.
 * @throws TidemarkError `window_too_fine`
 */
export async function requireMinutes(
  snapshot: Snapshot,
  { meter, tenantIds }: Asked,
  pieces: readonly Piece[],
): Promise<void> {
  const folded = Math.max(Number.NEGATIVE_INFINITY, ...snapshot.shards.map((shard) => shard.foldedUntil));
  const first = pieces.find((piece) => piece.source === 'minutes' && piece.from < folded);
  if (first === undefined) return;
  const firstOf = async (piece: Piece): Promise<number | undefined> => {
    const [row] = await snapshot.all(extentStatement(meter, tenantIds, [piece]));
    return row?.[0] === null || row?.[0] === undefined ? undefined : Number(row[0]);
  };
  const hour = await firstOf({
    source: 'hours',
    from: Math.floor(first.from / HOUR) * HOUR,
    to: Math.min(Math.ceil(first.to / HOUR) * HOUR, folded),
    shards: first.shards,
  });
  if (hour === undefined) return;
  const minute = await firstOf({ source: 'minutes', from: hour, to: hour + HOUR, shards: first.shards });
  if (minute === undefined)
    throw new TidemarkError(
      'window_too_fine',
      `minutes are not kept as far back as ${new Date(hour).toISOString()}: ask for whole hours`,
    );
}
