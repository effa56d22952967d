import type { Pool } from 'pg';
import { type Job, TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import { Exact, minorUnitOf, readDecimal, show } from '../rating/index.ts';
import { type Draft, draftStatements } from '../statements/draft.ts';
import { loadSubscriptions } from '../subscriptions/subscriptions.ts';
import type { Queryable } from '../usage/ports.ts';
import type { BillingPorts } from '../usage/source.ts';
import { announce } from '../webhooks/outbox.ts';

/** What a tenant means to spend in a billing period, and at which per cent of it to be told. */
export interface Budget {
  id: string;
  tenant_id: string;
  tenant: string;
  currency: string;
  amount: string;
  thresholds: number[];
}

const SELECT = `
  SELECT b.id, b.tenant_id, t.customer_id AS tenant, b.currency, b.amount::text AS amount, b.thresholds
  FROM budgets AS b JOIN tenants AS t ON t.id = b.tenant_id WHERE b.removed_at IS NULL`;

/** @throws TidemarkError `invalid_currency` | `invalid_body` */
export async function createBudget(
  database: Queryable,
  wanted: { tenantId: string; currency: string; amount: unknown; thresholds: readonly number[] },
): Promise<Budget> {
  minorUnitOf(wanted.currency);
  const amount = readDecimal(wanted.amount);
  if (amount === undefined || !amount.gt(0))
    throw new TidemarkError('invalid_body', 'amount must be more than 0', { extensions: { field: 'amount' } });
  const { rows } = await database.query<{ id: string }>(
    'INSERT INTO budgets (tenant_id, currency, amount, thresholds) VALUES ($1, $2, $3, $4) RETURNING id',
    [wanted.tenantId, wanted.currency, show(amount), [...new Set(wanted.thresholds)].sort((a, b) => a - b)],
  );
  const made = (await listBudgets(database, [wanted.tenantId])).find((budget) => budget.id === rows[0]?.id);
  if (made === undefined) throw new Error('the budget is gone');
  return made;
}

export async function listBudgets(database: Queryable, tenantIds: readonly string[] | null): Promise<Budget[]> {
  const { rows } = await database.query<Budget>(
    `${SELECT} AND ($1::uuid[] IS NULL OR b.tenant_id = ANY ($1)) ORDER BY b.created_at, b.id LIMIT 10000`,
    [tenantIds],
  );
  return rows;
}

/** @returns false when there is none */
export async function removeBudget(database: Queryable, id: string): Promise<boolean> {
  const { rowCount } = await database.query(
    'UPDATE budgets SET removed_at = now() WHERE id = $1 AND removed_at IS NULL',
    [id],
  );
  return rowCount === 1;
}

const CROSS = `
  INSERT INTO budget_crossings (budget_id, subscription_id, period_from, threshold, total, crossed_at) VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT DO NOTHING`;

/** Compares running totals with budgets, and tells of each threshold once a period. @returns how many were crossed */
export async function checkBudgets(
  deps: BillingPorts & { pool: Pool; now(): number; adjustWithinMs: number },
  signal?: AbortSignal,
): Promise<number> {
  let crossed = 0;
  const byTenant = Map.groupBy(await listBudgets(deps.pool, null), (budget) => budget.tenant_id);
  for (const [tenantId, budgets] of byTenant) {
    signal?.throwIfAborted();
    const now = deps.now();
    // The period that is running, not one that waits to be closed.
    const drafts = await draftStatements(deps, await loadSubscriptions(deps.pool, { tenantId }), now);
    for (const draft of drafts) for (const budget of budgets) crossed += await compare(deps, budget, draft);
  }
  return crossed;
}

async function compare(deps: { pool: Pool; now(): number }, budget: Budget, { head }: Draft): Promise<number> {
  if (head.currency !== budget.currency) return 0;
  const total = new Exact(head.total);
  const over = budget.thresholds.filter((percent) => total.gte(new Exact(budget.amount).times(percent).div(100)));
  let crossed = 0;
  for (const threshold of over)
    await withTransaction(deps.pool, async (client) => {
      const { rowCount } = await client.query(CROSS, [
        budget.id,
        head.subscription,
        head.period.from,
        threshold,
        head.total,
        new Date(deps.now()).toISOString(),
      ]);
      if (rowCount !== 1) return;
      crossed++;
      const data = {
        budget: budget.id,
        tenant: budget.tenant,
        subscription: head.subscription,
        period: head.period,
        currency: head.currency,
        amount: budget.amount,
        threshold_percent: threshold,
        total: head.total,
      };
      const id = `budget.crossed:${budget.id}:${head.subscription}:${head.period.from}:${threshold}`;
      await announce(client, [{ event: 'budget.crossed', id, data }]);
    });
  return crossed;
}

export function budgetJob(deps: Parameters<typeof checkBudgets>[0]): Job {
  return {
    name: 'check_budgets',
    schedule: '*/5 * * * *',
    run: async ({ signal }) => ({ crossed: await checkBudgets(deps, signal) }),
  };
}
