import { TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import type { Plan } from '../plans/plans.ts';
import { Exact, minorUnitOf, totalOf, ZERO } from '../rating/index.ts';
import { type CloseDeps, readPositions } from '../statements/close.ts';
import { billedPeriod, needsOf, rateBilled } from '../statements/lines.ts';
import { listStatements } from '../statements/store.ts';
import { periodFrom } from '../subscriptions/periods.ts';
import { loadSubscriptions, rulesOf } from '../subscriptions/subscriptions.ts';
import { readUsages } from '../usage/source.ts';

export interface WhatIf {
  plan: string;
  currency: string;
  statements: {
    statement: string;
    tenant: string;
    from: string;
    to: string;
    actual: string;
    what_if: string;
    difference: string;
  }[];
  actual: string;
  what_if: string;
  difference: string;
}

const MOST = 10_000;

/**
 * Rates the periods of closed statements under another plan: same usage, same periods, its prices. `actual` is what the
 * period's own charges came to under the plan it had, with what is metered now; adjustments and credit are left out.
 * @param query.tenantIds null: everybody @throws TidemarkError `invalid_range`
 */
export async function whatIf(
  deps: CloseDeps,
  plan: Plan,
  query: { tenantIds: readonly string[] | null; from: number; to: number },
): Promise<WhatIf> {
  const decimals = minorUnitOf(plan.currency);
  return withTransaction(deps.pool, async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    const found = await listStatements(client, {
      tenantIds: query.tenantIds,
      subscription: null,
      status: 'closed',
      endedIn: { from: query.from, to: query.to },
      before: null,
      limit: MOST + 1,
    });
    if (found.length > MOST)
      throw new TidemarkError('invalid_range', `more than ${MOST} statements: take a shorter range`);
    const same = found.filter(({ head }) => head.currency === plan.currency).reverse();
    const ids = [...new Set(same.map(({ head }) => head.subscription))];
    const byId = new Map((await loadSubscriptions(client, { ids })).map((one) => [one.id, one]));
    const pairs = same.flatMap(({ head }) => {
      const subscription = byId.get(head.subscription);
      const period = subscription && periodFrom(rulesOf(subscription), Date.parse(head.period.from));
      if (subscription === undefined || period === undefined) return [];
      const other = { ...subscription, phases: [{ from: subscription.start, plan }] };
      return [{ head, actual: billedPeriod(subscription, period), other: billedPeriod(other, period) }];
    });
    const needs = pairs.flatMap((pair) => [...needsOf(pair.actual), ...needsOf(pair.other)]);
    const usages = await readUsages(client, deps, needs, await readPositions(client));
    let [sumActual, sumOther] = [ZERO, ZERO];
    const statements = pairs.map(({ head, actual, other }) => {
      const was = new Exact(totalOf(rateBilled(actual, usages, decimals), plan.currency));
      const would = new Exact(totalOf(rateBilled(other, usages, decimals), plan.currency));
      sumActual = sumActual.plus(was);
      sumOther = sumOther.plus(would);
      return {
        statement: head.number ?? '',
        tenant: head.tenant,
        from: head.period.from,
        to: head.period.to,
        actual: was.toFixed(decimals),
        what_if: would.toFixed(decimals),
        difference: would.minus(was).toFixed(decimals),
      };
    });
    return {
      plan: plan.version === 0 ? '' : `${plan.key}@${plan.version}`,
      currency: plan.currency,
      statements,
      actual: sumActual.toFixed(decimals),
      what_if: sumOther.toFixed(decimals),
      difference: sumOther.minus(sumActual).toFixed(decimals),
    };
  });
}
