import { IANAZone } from 'luxon';
import { LIMITS } from '../schemas/index.ts';

export const WINDOW_SIZES = ['MINUTE', 'HOUR', 'DAY', 'MONTH'] as const;
export type WindowSize = (typeof WINDOW_SIZES)[number];

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;
const WEEK = 7 * DAY;
/** A window is no longer than this. */
const LONGEST = { MINUTE, HOUR: 1.5 * HOUR, DAY: 26 * HOUR, MONTH: 32 * DAY } as const;

/** Whether it is a time zone of the IANA database. */
export const isZone = (name: string): boolean => IANAZone.isValidZone(name);

/**
 * Boundaries of the windows that cover [from, to): `from`, every window start of the zone in between, `to`.
 * Days and months follow the zone's clock, through its changes; an hour is cut where the zone's clock shows a full one.
 * @param from,to Unix ms @param size undefined: one window @param most give up beyond so many windows
 * @returns undefined when there would be more than `most`
 */
export function windowBoundaries(
  from: number,
  to: number,
  size: WindowSize | undefined,
  zone: string,
  most: number,
): number[] | undefined {
  const boundaries = [from];
  if (size !== undefined) {
    if ((to - from) / LONGEST[size] > most) return undefined;
    // Every offset since 1972 is one of whole minutes.
    if (size === 'MINUTE') pushEvery(boundaries, MINUTE, 0, from, to);
    else if (size === 'HOUR') pushHours(boundaries, to, zone);
    else pushDays(boundaries, to, size, zone);
    if (boundaries.length > most) return undefined;
  }
  boundaries.push(to);
  return boundaries;
}

/** Times t in [from, to) with t ≡ phase (mod width), after the last boundary. */
function pushEvery(boundaries: number[], width: number, phase: number, from: number, to: number): void {
  const least = Math.max(from, (boundaries.at(-1) ?? 0) + 1);
  for (let at = Math.ceil((least - phase) / width) * width + phase; at < to; at += width) boundaries.push(at);
}

/** Every moment at which the zone's clock shows a full hour; a change of the clock by half an hour moves them. */
function pushHours(boundaries: number[], to: number, zone: string): void {
  const clock = IANAZone.create(zone);
  let at = boundaries[0] ?? 0;
  while (at < to) {
    const offset = clock.offset(at);
    let end = Math.min(at + 7 * DAY, to);
    if (clock.offset(end) !== offset) {
      // The clock changes in between: [low, high) narrows to the minute at which it does.
      let low = at;
      while (end - low > MINUTE) {
        const middle = Math.floor((low + end) / 2 / MINUTE) * MINUTE;
        if (middle <= low) break;
        if (clock.offset(middle) === offset) low = middle;
        else end = middle;
      }
    }
    pushEvery(boundaries, HOUR, -offset * MINUTE, at, end);
    at = end;
  }
}

/**
 * The first moment of each day or month on the zone's clock. The zone is asked about days next to a change of its clock,
 * else once a week: asking for each would hold up the process for seconds where a query spans centuries.
 */
function pushDays(boundaries: number[], to: number, size: 'DAY' | 'MONTH', zone: string): void {
  const clock = IANAZone.create(zone);
  // Where no event can be, nobody minds what clocks did.
  const offsetAt = (at: number) => clock.offset(Math.min(Math.max(at, LIMITS.times.from), LIMITS.times.to)) * MINUTE;
  const from = boundaries[0] ?? 0;
  let midnight = from + offsetAt(from);
  let week: number | undefined;
  let steady: number | undefined;
  for (;;) {
    midnight = nextMidnight(midnight, size);
    if (week !== Math.floor(midnight / WEEK)) {
      week = Math.floor(midnight / WEEK);
      const before = offsetAt(week * WEEK - DAY);
      steady = offsetAt((week + 1) * WEEK + DAY) === before ? before : undefined;
    }
    const start = steady === undefined ? startOfDay(midnight, offsetAt) : midnight - steady;
    if (start >= to) return;
    if (start > (boundaries.at(-1) ?? from)) boundaries.push(start);
  }
}

/** @param local what a zone's clock shows, as if it were UTC */
function nextMidnight(local: number, size: 'DAY' | 'MONTH'): number {
  if (size === 'DAY') return (Math.floor(local / DAY) + 1) * DAY;
  const date = new Date(local);
  return new Date(local).setUTCFullYear(date.getUTCFullYear(), date.getUTCMonth() + 1, 1) - mod(local, DAY);
}

/** The first moment at which the zone's clock shows `midnight` or, where it jumps over that, more. */
function startOfDay(midnight: number, offsetAt: (at: number) => number): number {
  // No zone is a whole day away from UTC.
  let low = midnight - DAY;
  let high = midnight + DAY;
  const before = offsetAt(low);
  const after = offsetAt(high);
  if (before === after) return midnight - before;
  while (high - low > MINUTE) {
    const middle = Math.floor((low + high) / 2 / MINUTE) * MINUTE;
    if (middle <= low) break;
    if (offsetAt(middle) === before) low = middle;
    else high = middle;
  }
  return midnight - before < high ? midnight - before : Math.max(high, midnight - after);
}

const mod = (a: number, b: number): number => a - Math.floor(a / b) * b;

/** UTC hours that a boundary cuts inside: they are read from their minutes. */
export function splitHours(boundaries: readonly number[]): number[] {
  return [...new Set(boundaries.filter((at) => at % HOUR !== 0).map((at) => Math.floor(at / HOUR) * HOUR))];
}

export const isWholeMinute = (ms: number): boolean => ms % MINUTE === 0;
