import type { Series } from './row.ts';

/** From which minute (since 1970) on there are at most `most` minute rows; Infinity: the latest one alone has more. */
export function minuteOfLatest(all: readonly Series[], most: number): number {
  const rows = new Map<number, number>();
  for (const { minutes } of all) for (const minute of minutes.keys()) rows.set(minute, (rows.get(minute) ?? 0) + 1);
  let first = Number.POSITIVE_INFINITY;
  let kept = 0;
  for (const [minute, count] of [...rows].sort(([a], [b]) => b - a)) {
    kept += count;
    if (kept > most) break;
    first = minute;
  }
  return first;
}

/** Drops the rows of minutes before `first`, and all hour rows. @returns how many rows are left */
export function dropRowsBefore(all: readonly Series[], first: number): number {
  let left = 0;
  for (const series of all) {
    const { minutes, hours } = series;
    hours.clear();
    for (const minute of minutes.keys()) if (minute < first) minutes.delete(minute);
    left += minutes.size;
    // It may be a row that is gone; the next event finds it in the map if it isn't.
    series.last = undefined;
  }
  return left;
}
