import type { Plan } from '../plans/plans.ts';
import type { CheckedCharge, Fraction } from '../rating/index.ts';
import type { Period } from './periods.ts';

/** A part of a period under one plan. Times are Unix ms. */
export interface Segment {
  from: number;
  to: number;
  plan: Plan;
  charges: readonly CheckedCharge[];
  /** nothing is charged */
  trial: boolean;
  /** whole minutes in which usage belongs to it: rollups know no finer */
  usage: { from: number; to: number };
  /** what of the whole period fixed amounts are charged for */
  fraction: Fraction;
}

const MINUTE = 60_000;
const minuteOf = (at: number): number => Math.floor(at / MINUTE) * MINUTE;
const secondsOf = (ms: number): number => Math.round(ms / 1000);

/**
 * Cuts a period where the plan changes and where the trial ends. Fixed amounts follow to the second; usage follows to
 * the minute: the minute in which a plan begins belongs to it whole.
 */
export function segmentsOf(
  subscription: { trialUntil: number | null; phases: readonly { from: number; plan: Plan }[] },
  period: Period,
): Segment[] {
  const { phases, trialUntil } = subscription;
  const cuts = [period.from, ...phases.map((phase) => phase.from), ...(trialUntil === null ? [] : [trialUntil])]
    .filter((at) => at >= period.from && at < period.to)
    .sort((a, b) => a - b);
  const starts = [...new Set(cuts)];
  return starts.flatMap((from, i) => {
    const to = starts[i + 1] ?? period.to;
    const plan = phases.findLast((phase) => phase.from <= from)?.plan;
    if (plan === undefined) return [];
    return [
      {
        from,
        to,
        plan,
        charges: plan.charges,
        trial: trialUntil !== null && from < trialUntil,
        usage: { from: minuteOf(from), to: minuteOf(to) },
        fraction: { seconds: secondsOf(to - from), of: secondsOf(period.wholeTo - period.wholeFrom) },
      },
    ];
  });
}
