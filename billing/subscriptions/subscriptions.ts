import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import { findPlan, loadPlans, type Plan } from '../plans/plans.ts';
import type { Queryable } from '../usage/ports.ts';
import { type PeriodRules, periodFrom } from './periods.ts';

/** A tenant billed by a plan. Times are Unix ms. */
export interface Subscription {
  id: string;
  tenantId: string;
  customerId: string;
  start: number;
  end: number | null;
  trialUntil: number | null;
  timeZone: string;
  periods: 'calendar' | 'anniversary';
  /** in order of `from`, the first one at the start */
  phases: { from: number; plan: Plan }[];
  /** end of the last closed period, or the start */
  closedUntil: number;
}

export interface NewSubscription {
  tenantId: string;
  /** key, or key@version */
  plan: string;
  start: number;
  end: number | null;
  trialUntil: number | null;
  timeZone: string;
  periods: 'calendar' | 'anniversary';
}

interface Row {
  id: string;
  tenant_id: string;
  customer_id: string;
  start_at: Date;
  end_at: Date | null;
  trial_until: Date | null;
  time_zone: string;
  periods: 'calendar' | 'anniversary';
  closed_until: Date;
  phases: { from: string; key: string; version: number }[];
}

const SELECT = `
  SELECT s.id, s.tenant_id, t.customer_id, s.start_at, s.end_at, s.trial_until, s.time_zone, s.periods, s.closed_until,
    (SELECT json_agg(json_build_object('from', p.from_at, 'key', p.plan_key, 'version', p.plan_version) ORDER BY p.from_at)
      FROM subscription_phases AS p WHERE p.subscription_id = s.id) AS phases
  FROM subscriptions AS s JOIN tenants AS t ON t.id = s.tenant_id`;

/** Which subscriptions. */
export type Which =
  | { ids: readonly string[] }
  | { tenantId: string }
  | { tenantIds: readonly string[] | null; after: string; limit: number };

/** @param lock the rows are locked until the transaction ends */
export async function loadSubscriptions(database: Queryable, which: Which, lock = false): Promise<Subscription[]> {
  const [where, values] = whereOf(which);
  const { rows } = await database.query<Row>(`${SELECT} ${where}${lock ? ' FOR UPDATE OF s' : ''}`, values);
  const plans = await loadPlans(
    database,
    rows.flatMap((row) => row.phases),
  );
  return rows.map((row) => toSubscription(row, plans));
}

function whereOf(which: Which): [string, unknown[]] {
  if ('ids' in which) return ['WHERE s.id = ANY ($1::uuid[]) ORDER BY s.next_close_at, s.id', [which.ids]];
  if ('tenantId' in which) return ['WHERE s.tenant_id = $1 ORDER BY s.id', [which.tenantId]];
  return [
    `WHERE ($1::uuid[] IS NULL OR s.tenant_id = ANY ($1)) AND ($2 = '' OR s.id::text > $2) ORDER BY s.id::text LIMIT $3`,
    [which.tenantIds, which.after, which.limit],
  ];
}

function toSubscription(row: Row, plans: ReadonlyMap<string, Plan>): Subscription {
  return {
    id: row.id,
    tenantId: row.tenant_id,
    customerId: row.customer_id,
    start: row.start_at.getTime(),
    end: row.end_at?.getTime() ?? null,
    trialUntil: row.trial_until?.getTime() ?? null,
    timeZone: row.time_zone,
    periods: row.periods,
    closedUntil: row.closed_until.getTime(),
    phases: row.phases.map(({ from, key, version }) => {
      const plan = plans.get(`${key}@${version}`);
      if (plan === undefined) throw new Error(`plan ${key}@${version} is gone`);
      return { from: Date.parse(from), plan };
    }),
  };
}

/** What periods follow from. */
export const rulesOf = (subscription: Omit<Subscription, 'id' | 'tenantId' | 'customerId'>): PeriodRules => ({
  ...subscription,
  phases: subscription.phases.map(({ from, plan }) => ({ from, interval: plan.interval })),
});

/** End of the first period that is not closed, for the column of that name. */
export function nextCloseAt(rules: PeriodRules, closedUntil: number): string {
  const period = periodFrom(rules, closedUntil);
  return period === undefined ? 'infinity' : new Date(period.to).toISOString();
}

/** @throws TidemarkError `unknown_plan` | `invalid_subscription` */
export async function createSubscription(pool: Pool, wanted: NewSubscription): Promise<Subscription> {
  const plan = await planOf(pool, wanted.plan);
  const wrong = (detail: string) => new TidemarkError('invalid_subscription', detail);
  if (wanted.end !== null && wanted.end <= wanted.start) throw wrong('end must be after start');
  if (wanted.trialUntil !== null && wanted.trialUntil <= wanted.start) throw wrong('trial_until must be after start');
  const phases = [{ from: wanted.start, plan }];
  const rules = rulesOf({ ...wanted, phases, closedUntil: wanted.start });
  const id = await withTransaction(pool, async (client) => {
    const { rows } = await client.query<{ id: string }>(
      `INSERT INTO subscriptions (tenant_id, start_at, end_at, trial_until, time_zone, periods, closed_until, next_close_at)
       VALUES ($1, $2, $3, $4, $5, $6, $2, $7) RETURNING id`,
      [
        wanted.tenantId,
        timestamp(wanted.start),
        timestamp(wanted.end),
        timestamp(wanted.trialUntil),
        wanted.timeZone,
        wanted.periods,
        nextCloseAt(rules, wanted.start),
      ],
    );
    const made = rows[0]?.id ?? '';
    await addPhase(client, made, wanted.start, plan);
    return made;
  });
  return one(pool, id);
}

/**
 * Changes the plan from `from` on, or ends the subscription: never in a closed period.
 * @throws TidemarkError `unknown_plan` | `period_closed` | `invalid_subscription` | `not_found`
 */
export async function changeSubscription(
  pool: Pool,
  id: string,
  change: { plan: string; from: number } | { end: number },
): Promise<Subscription> {
  await withTransaction(pool, async (client) => {
    const [subscription] = await loadSubscriptions(client, { ids: [id] }, true);
    if (subscription === undefined) throw new TidemarkError('not_found', `there is no subscription ${id}`);
    const at = 'end' in change ? change.end : change.from;
    if (at < subscription.closedUntil)
      throw new TidemarkError(
        'period_closed',
        `${timestamp(at)} lies in a closed period: the first open one begins at ${timestamp(subscription.closedUntil)}`,
      );
    if (subscription.end !== null && at >= subscription.end)
      throw new TidemarkError('invalid_subscription', `the subscription ends at ${timestamp(subscription.end)}`);
    const changed =
      'end' in change ? endAt(subscription, change.end) : await changePlan(client, subscription, change.plan, at);
    await client.query('UPDATE subscriptions SET end_at = $2, next_close_at = $3 WHERE id = $1', [
      id,
      timestamp(changed.end),
      nextCloseAt(rulesOf(changed), changed.closedUntil),
    ]);
  });
  return one(pool, id);
}

function endAt(subscription: Subscription, end: number): Subscription {
  if (end <= subscription.start) throw new TidemarkError('invalid_subscription', 'end must be after start');
  if (subscription.phases.some((phase) => phase.from >= end))
    throw new TidemarkError('invalid_subscription', 'a change of plan comes after this end');
  return { ...subscription, end };
}

async function changePlan(
  client: Queryable,
  subscription: Subscription,
  reference: string,
  from: number,
): Promise<Subscription> {
  const plan = await planOf(client, reference);
  const last = subscription.phases.at(-1);
  if (last !== undefined && from <= last.from)
    throw new TidemarkError('invalid_subscription', `a plan begins at ${timestamp(last.from)}: take a later time`);
  if (last !== undefined && plan.currency !== last.plan.currency)
    throw new TidemarkError('invalid_subscription', `${plan.key} is in ${plan.currency}, not ${last.plan.currency}`);
  await addPhase(client, subscription.id, from, plan);
  return { ...subscription, phases: [...subscription.phases, { from, plan }] };
}

async function addPhase(client: Queryable, id: string, from: number, plan: Plan): Promise<void> {
  await client.query(
    'INSERT INTO subscription_phases (subscription_id, from_at, plan_key, plan_version) VALUES ($1, $2, $3, $4)',
    [id, timestamp(from), plan.key, plan.version],
  );
}

async function planOf(database: Queryable, reference: string): Promise<Plan> {
  const plan = await findPlan(database, reference);
  if (plan === undefined) throw new TidemarkError('unknown_plan', `there is no plan ${reference}`);
  return plan;
}

async function one(pool: Pool, id: string): Promise<Subscription> {
  const [subscription] = await loadSubscriptions(pool, { ids: [id] });
  if (subscription === undefined) throw new TidemarkError('not_found', `there is no subscription ${id}`);
  return subscription;
}

function timestamp(ms: number): string;
function timestamp(ms: number | null): string | null;
function timestamp(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
