import { DateTime } from 'luxon';

export const INTERVALS = ['month', 'quarter', 'year'] as const;
export type Interval = (typeof INTERVALS)[number];
export const MONTHS: Record<Interval, number> = { month: 1, quarter: 3, year: 12 };

/** What a subscription says about its periods. Times are Unix ms. */
export interface PeriodRules {
  start: number;
  end: number | null;
  /** IANA zone in which months begin */
  timeZone: string;
  /** from the first of a month (quarter, year), or from the day and time of the start */
  periods: 'calendar' | 'anniversary';
  /** in order of `from`, the first one at the start */
  phases: readonly { from: number; interval: Interval }[];
}

/** One billing period: [from, to) of the whole one [wholeFrom, wholeTo), which is what fixed amounts are for. */
export interface Period {
  from: number;
  to: number;
  wholeFrom: number;
  wholeTo: number;
}

/**
 * The period that begins at `from`: the subscription's start, or the end of another period. It ends where the zone's
 * calendar says, at a change to a plan of another interval, or with the subscription.
 * @returns undefined at and after the subscription's end
 */
export function periodFrom(rules: PeriodRules, from: number): Period | undefined {
  if (rules.end !== null && from >= rules.end) return undefined;
  const at = rules.phases.findLastIndex((phase) => phase.from <= from);
  const phase = rules.phases[at];
  if (phase === undefined) return undefined;
  const { interval } = phase;
  const change = rules.phases.slice(at + 1).find((later) => later.interval !== interval)?.from;
  const whole =
    rules.periods === 'calendar'
      ? calendarPeriod(from, interval, rules.timeZone)
      : anniversaryPeriod(anchorOf(rules, at), from, interval, rules.timeZone);
  return {
    from,
    to: Math.min(whole.to, change ?? Number.POSITIVE_INFINITY, rules.end ?? Number.POSITIVE_INFINITY),
    wholeFrom: whole.from,
    wholeTo: whole.to,
  };
}

/** The period that holds `at`, searched from one that is known to begin at `from`. */
export function periodAt(rules: PeriodRules, at: number, from: number): Period | undefined {
  let period = periodFrom(rules, from);
  while (period !== undefined && period.to <= at) period = periodFrom(rules, period.to);
  return period;
}

/** Anniversaries count from the start, or from where the interval last changed. */
function anchorOf({ phases }: PeriodRules, at: number): number {
  let first = at;
  while (first > 0 && phases[first - 1]?.interval === phases[at]?.interval) first--;
  return phases[first]?.from ?? 0;
}

function calendarPeriod(at: number, interval: Interval, zone: string): { from: number; to: number } {
  const from = DateTime.fromMillis(at, { zone }).startOf(interval);
  const to = from.plus({ months: MONTHS[interval] }).startOf(interval);
  return { from: from.toMillis(), to: to.toMillis() };
}

/**
 * Always counted from the anchor, so that 31 January is followed by 28 (or 29) February and then 31 March, and the
 * zone's clock shows the same time through its changes.
 */
function anniversaryPeriod(anchor: number, at: number, interval: Interval, zone: string): { from: number; to: number } {
  const first = DateTime.fromMillis(anchor, { zone });
  const boundary = (n: number) => first.plus({ months: n * MONTHS[interval] }).toMillis();
  const passed = Math.floor(DateTime.fromMillis(at, { zone }).diff(first, 'months').months / MONTHS[interval]);
  let n = Math.max(0, passed - 1);
  while (boundary(n + 1) <= at) n++;
  return { from: boundary(n), to: boundary(n + 1) };
}
