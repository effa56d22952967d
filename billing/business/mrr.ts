import { type Exact, ONCE, rateCharge, ZERO } from '../rating/index.ts';
import { MONTHS } from '../subscriptions/periods.ts';
import type { Subscription } from '../subscriptions/subscriptions.ts';

/** Decimals that a month's share of a year is rated to before it is added up. */
const SHARE_DECIMALS = 18;

/** Monthly recurring revenue of a subscription at a time (Unix ms): its flat charges, by the month; none in a trial. */
export function mrrOf(subscription: Subscription, at: number): Exact {
  if (at < subscription.start || (subscription.end !== null && at >= subscription.end)) return ZERO;
  if (subscription.trialUntil !== null && at < subscription.trialUntil) return ZERO;
  const plan = subscription.phases.findLast((phase) => phase.from <= at)?.plan;
  if (plan === undefined) return ZERO;
  return plan.charges
    .filter((charge) => charge.model.model === 'flat')
    .reduce((sum, charge) => sum.plus(rateCharge(charge, ONCE, SHARE_DECIMALS).amount), ZERO)
    .div(MONTHS[plan.interval]);
}

/** How MRR moved between two times. `end` = `start` + new + expansion − contraction − churn. */
export interface Movement {
  start: Exact;
  new: Exact;
  expansion: Exact;
  contraction: Exact;
  churn: Exact;
  end: Exact;
}

/** By customer: a customer that begins or ends with nothing is new or churned, another one grows or shrinks. */
export function movementOf(subscriptions: Iterable<Subscription>, from: number, to: number): Movement {
  const customers = new Map<string, { before: Exact; after: Exact }>();
  for (const subscription of subscriptions) {
    const known = customers.get(subscription.tenantId) ?? { before: ZERO, after: ZERO };
    customers.set(subscription.tenantId, {
      before: known.before.plus(mrrOf(subscription, from)),
      after: known.after.plus(mrrOf(subscription, to)),
    });
  }
  const movement: Movement = { start: ZERO, new: ZERO, expansion: ZERO, contraction: ZERO, churn: ZERO, end: ZERO };
  for (const { before, after } of customers.values()) {
    movement.start = movement.start.plus(before);
    movement.end = movement.end.plus(after);
    const kind =
      before.isZero() && !after.isZero()
        ? 'new'
        : after.isZero()
          ? 'churn'
          : after.gt(before)
            ? 'expansion'
            : 'contraction';
    movement[kind] = movement[kind].plus(after.minus(before).abs());
  }
  return movement;
}
