import type { Pool } from 'pg';
import { withTransaction } from '../../sinks/index.ts';
import { burn, loadGrants } from '../credits/credits.ts';
import { periodAt } from '../subscriptions/periods.ts';
import { rulesOf, type Subscription } from '../subscriptions/subscriptions.ts';
import { type BillingPorts, readUsages } from '../usage/source.ts';
import type { Need } from '../usage/usage.ts';
import { assembleLines, type Head, headOf, iso, RatedLines } from './assemble.ts';
import { readPositions } from './close.ts';
import { billedPeriod, type StatementLine } from './lines.ts';

export interface Draft {
  head: Head;
  lines: StatementLine[];
}

/**
 * Running statements as of now: what the close would write, for the first open period (or the one that holds `at`).
 * Nothing is stored.
 */
export async function draftStatements(
  deps: BillingPorts & { pool: Pool; now(): number; adjustWithinMs: number },
  subscriptions: readonly Subscription[],
  at?: number,
): Promise<Draft[]> {
  const now = deps.now();
  const billed = subscriptions.flatMap((subscription) => {
    const rules = rulesOf(subscription);
    const period = periodAt(rules, at ?? subscription.closedUntil, subscription.closedUntil);
    return period === undefined || period.from > Math.max(now, at ?? now) ? [] : [billedPeriod(subscription, period)];
  });
  if (billed.length === 0) return [];
  return withTransaction(deps.pool, async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    const positions = await readPositions(client);
    const since = now - deps.adjustWithinMs;
    const source = (needs: readonly Need[]) => readUsages(client, deps, needs, positions);
    const lines = await assembleLines(client, source, billed, { before: Number.MAX_SAFE_INTEGER, since });
    const grants = await loadGrants(client, [...new Set(billed.map((one) => one.subscription.tenantId))]);
    return billed.map((one) => {
      const own = lines.get(one) ?? new RatedLines();
      const facts = {
        number: null,
        revision: 0,
        replaces: null,
        reason: null,
        positions,
        adjusted_since: iso(since),
        closed_at: iso(now),
      };
      const head = headOf(one, own, facts, (payable) => burn(grants, payable));
      return { head, lines: own.read() };
    });
  });
}
