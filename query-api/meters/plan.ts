/**
 * Which rollups answer a question, exactly: the coarsest ones that still tell apart what it asks for, hour rows where
 * coarse ones are stale, minutes where an hour is cut or not folded yet. Times are Unix ms, UTC.
 */
import { hasLevel, LEVEL, levelName } from '../../metering/index.ts';
import type { Meter } from '../../schemas/index.ts';

const HOUR = 3_600_000;
const DAY = 86_400_000;

/** How far a shard's rollups reach, as one snapshot has it. */
export interface ShardBounds {
  shard: number;
  /** hours before it have hour rows */
  foldedUntil: number;
  /** hours before it have coarse rows, unless they are stale */
  coarseUntil: number;
  /** ascending starts of hours */
  stale: readonly number[];
}

/** One stretch of one kind of rollup. */
export interface Piece {
  /** 'minutes', 'hours', or a level of the coarse rollups */
  source: 'minutes' | 'hours' | number;
  from: number;
  to: number;
  /** null: all */
  shards: readonly number[] | null;
}

export interface PlanRequest {
  meter: Meter;
  from: number;
  to: number;
  /** starts and ends of windows: no row may reach over one */
  boundaries: readonly number[];
  /** windows are minutes: nothing coarser helps */
  minutesOnly: boolean;
  /** windows are hours: days don't help */
  withoutDays: boolean;
  byTenant: boolean;
  byGroup: boolean;
}

/** How far rollups reach, as one snapshot has it. */
export interface RollupBounds {
  shards: readonly ShardBounds[];
  /** ascending starts of hours whose coarse rows are not added up over all shards as they stand */
  unmerged: readonly number[];
}

/** The pieces that cover [from, to) once, for every shard. */
export function planPieces(request: PlanRequest, { shards, unmerged }: RollupBounds): Piece[] {
  const { from, to, meter } = request;
  if (from >= to) return [];
  if (request.minutesOnly) return [{ source: 'minutes', from, to, shards: null }];
  const level = (request.byTenant ? LEVEL.byTenant : 0) | (request.byGroup ? LEVEL.byGroup : 0);
  const sources: Sources = {
    days: hasLevel(meter, level | LEVEL.byDay) && !request.withoutDays ? level | LEVEL.byDay : undefined,
    hours: hasLevel(meter, level) ? level : 'hours',
  };
  // Hours don't reach over a boundary on the hour.
  const boundaries = request.boundaries.filter((at) => !request.withoutDays || at % HOUR !== 0);
  const stretch: Stretch = { from, to, boundaries: ascending(boundaries) };
  return request.byTenant || typeof sources.hours !== 'number'
    ? shardPieces(stretch, statesOf(shards), sources, true)
    : mergedPieces(stretch, shards, unmerged, sources);
}

const ascending = (times: Iterable<number>): number[] => [...new Set(times)].sort((a, b) => a - b);

interface Sources {
  days: number | undefined;
  hours: number | 'hours';
}

interface Stretch {
  from: number;
  to: number;
  /** ascending */
  boundaries: readonly number[];
}

interface State {
  bounds: Omit<ShardBounds, 'shard'>;
  shards: number[];
}

/** Shards in the same state share their pieces. */
function statesOf(shards: readonly ShardBounds[]): State[] {
  const states = Map.groupBy(shards, (one) => JSON.stringify([one.foldedUntil, one.coarseUntil, one.stale]));
  return [...states.values()].flatMap((same) =>
    same[0] === undefined ? [] : [{ bounds: same[0], shards: same.map((one) => one.shard) }],
  );
}

/** @param all whether there are no other shards */
function shardPieces(stretch: Stretch, states: readonly State[], sources: Sources, all: boolean): Piece[] {
  const named = states.length > 1 || !all;
  return states.flatMap(({ bounds, shards }) => piecesOf(stretch, bounds, sources, named ? shards : null));
}

/**
 * Rows that are added up over all shards, for the shards that have coarse rows of an hour; what the others have of it; and
 * every shard's own where an hour is not merged, stale in any of them, or cut.
 */
function mergedPieces(
  stretch: Stretch,
  shards: readonly ShardBounds[],
  unmerged: readonly number[],
  sources: Sources,
): Piece[] {
  const merged: Piece[] = [];
  const own: Piece[] = [];
  // Between two of these it is the same shards that have coarse rows.
  const ends = ascending(shards.map((one) => one.coarseUntil)).filter((at) => at > stretch.from && at < stretch.to);
  let { from } = stretch;
  for (const to of [...ends, stretch.to]) {
    const part = { ...stretch, from, to };
    const { covered = [], rest = [] } = Object.groupBy(shards, (one) =>
      one.coarseUntil > part.from ? 'covered' : 'rest',
    );
    const states = statesOf(covered);
    const isAll = rest.length === 0;
    if (covered.length > 0) {
      const bounds = {
        foldedUntil: Number.POSITIVE_INFINITY,
        coarseUntil: Number.POSITIVE_INFINITY,
        stale: ascending([unmerged, ...covered.map((one) => one.stale)].flat()),
      };
      for (const piece of piecesOf(part, bounds, mergedOf(sources), null)) {
        const last = merged.at(-1);
        if (typeof piece.source !== 'number')
          own.push(...shardPieces({ ...stretch, from: piece.from, to: piece.to }, states, sources, isAll));
        else if (last?.source === piece.source && last.to === piece.from) last.to = piece.to;
        else merged.push(piece);
      }
    }
    own.push(...shardPieces(part, statesOf(rest), sources, covered.length === 0));
    from = to;
  }
  return [...merged, ...own];
}

const mergedOf = ({ days, hours }: Sources): Sources => ({
  days: days === undefined ? undefined : days | LEVEL.merged,
  hours: typeof hours === 'number' ? hours | LEVEL.merged : hours,
});

function piecesOf(
  { from, to, boundaries }: Stretch,
  { foldedUntil, coarseUntil, stale }: Omit<ShardBounds, 'shard'>,
  sources: Sources,
  shards: readonly number[] | null,
): Piece[] {
  const cut = ascending([from, to, ...boundaries.filter((at) => at > from && at < to)]);
  const cutHours = new Set(cut.filter((at) => at % HOUR !== 0).map(floorHour));
  const pieces: Piece[] = [];
  const emit = (source: Piece['source'], start: number, end: number) => {
    if (start >= end) return;
    const last = pieces.at(-1);
    if (last?.source === source && last.to === start) last.to = end;
    else pieces.push({ source, from: start, to: end, shards });
  };
  /** whole hours, no boundary inside, no stale hour */
  const plain = (start: number, end: number) => {
    const coarse = Math.max(start, Math.min(end, coarseUntil));
    const folded = Math.max(coarse, Math.min(end, foldedUntil));
    const firstDay = Math.ceil(start / DAY) * DAY;
    const lastDay = Math.floor(coarse / DAY) * DAY;
    if (sources.days !== undefined && firstDay < lastDay) {
      emit(sources.hours, start, firstDay);
      emit(sources.days, firstDay, lastDay);
      emit(sources.hours, lastDay, coarse);
    } else emit(sources.hours, start, coarse);
    emit('hours', coarse, folded);
    emit('minutes', folded, end);
  };
  const staleHours = stale.filter((hour) => hour + HOUR > from && hour < to && !cutHours.has(hour));
  const stops = [
    // Hours that are not read as the rest is.
    ...[...cutHours].map((at) => ({ at: Math.max(at, from), to: Math.min(at + HOUR, to), source: 'minutes' as const })),
    ...staleHours.map((at) => ({
      at,
      to: at + HOUR,
      source: at < foldedUntil ? ('hours' as const) : ('minutes' as const),
    })),
    // Boundaries on the hour: days don't reach over them.
    ...cut.filter((at) => at % HOUR === 0).map((at) => ({ at, to: at, source: 'hours' as const })),
  ].sort((a, b) => a.at - b.at || a.to - b.to);
  let at = from;
  for (const stop of stops) {
    plain(at, stop.at);
    emit(stop.source, stop.at, stop.to);
    at = Math.max(at, stop.to);
  }
  plain(at, to);
  return pieces;
}

const floorHour = (at: number): number => Math.floor(at / HOUR) * HOUR;

/** A plan for people. */
export function explainPieces(
  pieces: readonly Piece[],
): { rollup: string; from: string; to: string; shards: readonly number[] | 'all' }[] {
  return pieces.map(({ source, from, to, shards }) => ({
    rollup:
      typeof source === 'number'
        ? levelName(source)
        : source === 'hours'
          ? 'hours by tenant and group'
          : 'minutes by tenant and group',
    from: new Date(from).toISOString(),
    to: new Date(to).toISOString(),
    shards: shards ?? 'all',
  }));
}
