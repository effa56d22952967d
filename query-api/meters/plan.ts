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

/** The pieces that cover [from, to) once, for every shard. */
export function planPieces(request: PlanRequest, shards: readonly ShardBounds[]): Piece[] {
  const { from, to, meter } = request;
  if (from >= to) return [];
  if (request.minutesOnly) return [{ source: 'minutes', from, to, shards: null }];
  const hourLevel = (request.byTenant ? LEVEL.byTenant : 0) | (request.byGroup ? LEVEL.byGroup : 0);
  const sources: Sources = {
    days: hasLevel(meter, hourLevel | LEVEL.byDay) && !request.withoutDays ? hourLevel | LEVEL.byDay : undefined,
    hours: hasLevel(meter, hourLevel) ? hourLevel : 'hours',
  };
  const cut = [...new Set([from, to, ...request.boundaries])]
    .filter((at) => at >= from && at <= to)
    .sort((a, b) => a - b);
  const cutHours = new Set(cut.filter((at) => at % HOUR !== 0).map(floorHour));
  // Shards in the same state share their pieces.
  const states = Map.groupBy(shards, (one) => JSON.stringify([one.foldedUntil, one.coarseUntil, one.stale]));
  const pieces: Piece[] = [];
  for (const same of states.values()) {
    const own = states.size === 1 ? null : same.map((one) => one.shard);
    const bounds = same[0];
    if (bounds !== undefined) pieces.push(...piecesOf(request, bounds, sources, { cut, cutHours }, own));
  }
  return pieces;
}

interface Sources {
  days: number | undefined;
  hours: number | 'hours';
}

function piecesOf(
  { from, to }: PlanRequest,
  { foldedUntil, coarseUntil, stale }: ShardBounds,
  sources: Sources,
  { cut, cutHours }: { cut: readonly number[]; cutHours: ReadonlySet<number> },
  shards: readonly number[] | null,
): Piece[] {
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
