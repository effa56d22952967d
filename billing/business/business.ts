import type { Pool } from 'pg';
import { Exact, minorUnitOf } from '../rating/index.ts';
import { loadSubscriptions, type Subscription } from '../subscriptions/subscriptions.ts';
import type { BillingPorts } from '../usage/source.ts';
import { type Movement, movementOf, mrrOf } from './mrr.ts';

export interface BusinessQuery {
  /** Unix ms */
  from: number;
  to: number;
  /** how many customers the tops show */
  top: number;
  /** slug of the meter that "usage" is */
  meter: string;
}

export interface Business {
  from: string;
  to: string;
  customers: { active: number; subscribed: number; paying: number };
  mrr: ({ currency: string } & Record<keyof Movement, string>)[];
  revenue: { currency: string; total: string; statements: number }[];
  top_by_revenue: { tenant: string; currency: string; total: string }[];
  top_by_usage: { tenant: string; meter: string; quantity: string }[];
  revenue_by_plan: { plan: string; currency: string; total: string; customers: number }[];
}

/** Closed statements that are good, of periods that ended in the range. */
const CLOSED = `
  statements AS s WHERE s.period_to > $1 AND s.period_to <= $2 AND NOT EXISTS (SELECT FROM statement_voids AS v WHERE v.number = s.number)`;
const BY_CURRENCY = `SELECT s.currency, sum(s.total)::text AS total, count(*)::int AS statements FROM ${CLOSED} GROUP BY 1 ORDER BY 1`;
const BY_CUSTOMER = `
  SELECT t.customer_id AS tenant, r.currency, r.total::text AS total FROM (
    SELECT s.tenant_id, s.currency, sum(s.total) AS total FROM ${CLOSED} GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT $3) AS r
  JOIN tenants AS t ON t.id = r.tenant_id ORDER BY r.total DESC, 1`;
const BY_PLAN = `
  SELECT split_part(l.content::json ->> 'plan', '@', 1) AS plan, s.currency, sum((l.content::json ->> 'amount')::numeric)::text AS total,
    count(DISTINCT s.tenant_id)::int AS customers
  FROM statement_lines AS l JOIN statements AS s USING (number)
  WHERE s.number IN (SELECT s.number FROM ${CLOSED}) GROUP BY 1, 2 ORDER BY sum((l.content::json ->> 'amount')::numeric) DESC, 1`;
/** Tenants with any event in the range. */
const ACTIVE = `
  SELECT DISTINCT tenant_id FROM rollups_minute WHERE meter_id = $3 AND bucket >= $1 AND bucket < $2
  UNION SELECT DISTINCT tenant_id FROM rollups_hour WHERE meter_id = $3 AND bucket >= $1 AND bucket < $2`;
const PAGE = 1_000;

/** The business in numbers: recurring revenue and how it moved, customers, revenue by customer and plan. */
export async function businessOf(deps: BillingPorts & { pool: Pool }, query: BusinessQuery): Promise<Business> {
  const { pool } = deps;
  const range = [new Date(query.from).toISOString(), new Date(query.to).toISOString()];
  const subscriptions = await allSubscriptions(pool);
  const byCurrency = Map.groupBy(subscriptions, (one) => one.phases[0]?.plan.currency ?? '');
  const inRange = subscriptions.filter((one) => one.start < query.to && (one.end === null || one.end > query.from));
  const paying = new Set(inRange.filter((one) => !mrrOf(one, query.to - 1).isZero()).map((one) => one.tenantId));
  const revenue = await pool.query<Business['revenue'][number]>(BY_CURRENCY, range);
  const customers = await pool.query<Business['top_by_revenue'][number]>(BY_CUSTOMER, [...range, query.top]);
  const plans = await pool.query<Business['revenue_by_plan'][number]>(BY_PLAN, range);
  const usage = await usageOf(deps, query, range);
  const inMinorUnits = <T extends { currency: string; total: string }>(row: T): T => ({
    ...row,
    total: new Exact(row.total).toFixed(minorUnitOf(row.currency)),
  });
  return {
    from: range[0] ?? '',
    to: range[1] ?? '',
    customers: {
      active: usage.active,
      subscribed: new Set(inRange.map((one) => one.tenantId)).size,
      paying: paying.size,
    },
    mrr: [...byCurrency]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([currency, own]) => ({
        currency,
        ...inUnits(movementOf(own, query.from, query.to), minorUnitOf(currency)),
      })),
    revenue: revenue.rows.map(inMinorUnits),
    top_by_revenue: customers.rows.map(inMinorUnits),
    top_by_usage: usage.top,
    revenue_by_plan: plans.rows.map(inMinorUnits),
  };
}

async function usageOf(deps: BillingPorts & { pool: Pool }, query: BusinessQuery, range: readonly string[]) {
  const meter = await deps.findMeter(query.meter, null);
  if (meter === undefined) return { active: 0, top: [] };
  const { rows } = await deps.pool.query<{ tenant_id: string }>(ACTIVE, [...range, meter.id]);
  const minute = (at: number) => Math.floor(at / 60_000) * 60_000;
  const [from, to] = [minute(query.from), minute(query.to)];
  if (from >= to || rows.length === 0) return { active: rows.length, top: [] };
  const used = await deps.readUsage(deps.pool, {
    meter,
    tenantIds: rows.map((row) => row.tenant_id),
    from,
    to,
    filters: new Map(),
    groupBy: [],
    withEvents: false,
  });
  const top = used
    .toSorted((a, b) => new Exact(b.quantity).cmp(a.quantity) || (a.customerId < b.customerId ? -1 : 1))
    .slice(0, query.top)
    .map((row) => ({ tenant: row.customerId, meter: meter.slug, quantity: row.quantity }));
  return { active: rows.length, top };
}

function inUnits(movement: Movement, decimals: number): Record<keyof Movement, string> {
  const { start, new: added, expansion, contraction, churn, end } = movement;
  const shown = (value: Exact) => value.toFixed(decimals);
  return {
    start: shown(start),
    new: shown(added),
    expansion: shown(expansion),
    contraction: shown(contraction),
    churn: shown(churn),
    end: shown(end),
  };
}

async function allSubscriptions(pool: Pool): Promise<Subscription[]> {
  const all: Subscription[] = [];
  for (let after = ''; ; ) {
    const page = await loadSubscriptions(pool, { tenantIds: null, after, limit: PAGE });
    all.push(...page);
    if (page.length < PAGE) return all;
    after = page.at(-1)?.id ?? '';
  }
}
