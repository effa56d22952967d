import { DateTime, IANAZone } from 'luxon';

export const WINDOW_SIZES = ['MINUTE', 'HOUR', 'DAY', 'MONTH'] as const;
export type WindowSize = (typeof WINDOW_SIZES)[number];

const MINUTE = 60_000;
const HOUR = 3_600_000;
const UNIT = { MINUTE: 'minute', HOUR: 'hour', DAY: 'day', MONTH: 'month' } as const;

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
    const unit = UNIT[size];
    let start = DateTime.fromMillis(from, { zone }).startOf(unit);
    for (;;) {
      const next =
        size === 'MINUTE' || size === 'HOUR' ? start.plus({ [unit]: 1 }) : start.plus({ [unit]: 1 }).startOf(unit);
      start = next;
      if (next.toMillis() >= to) break;
      if (next.toMillis() <= (boundaries.at(-1) ?? from)) continue;
      boundaries.push(next.toMillis());
      if (boundaries.length > most) return undefined;
    }
  }
  boundaries.push(to);
  return boundaries;
}

/** UTC hours that a boundary cuts inside: they are read from their minutes. */
export function splitHours(boundaries: readonly number[]): number[] {
  return [...new Set(boundaries.filter((at) => at % HOUR !== 0).map((at) => Math.floor(at / HOUR) * HOUR))];
}

export const isWholeMinute = (ms: number): boolean => ms % MINUTE === 0;
