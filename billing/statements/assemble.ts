import { type Burn, burntOf, type Payable } from '../credits/credits.ts';
import { Exact, minorUnitOf, ZERO } from '../rating/index.ts';
import { periodFrom } from '../subscriptions/periods.ts';
import { rulesOf, type Subscription } from '../subscriptions/subscriptions.ts';
import type { Position, Queryable } from '../usage/ports.ts';
import type { Need, Usages } from '../usage/usage.ts';
import { type Adjustable, adjust, adjustableStatements, billedLines } from './adjustments.ts';
import { canonicalJson } from './canonical.ts';
import { type Billed, billedPeriod, needsOf, rateBilled, type StatementLine } from './lines.ts';
import { serialOf } from './numbers.ts';

/** Reads the metered values of many needs at once: from rollups, or from raw events. */
export type UsageSource = (needs: readonly Need[]) => Promise<Usages>;

/** Everything a statement says but its lines. */
export interface Head {
  /** null: a draft */
  number: string | null;
  revision: number;
  replaces: string | null;
  reason: string | null;
  tenant: string;
  tenant_id: string;
  subscription: string;
  period: { from: string; to: string; time_zone: string };
  currency: string;
  terms: { plan: string; name: string; from: string; to: string; trial: boolean }[];
  /** events before these offsets are counted */
  positions: Position[];
  /** earlier statements whose periods ended after this were looked at for late and corrected usage */
  adjusted_since: string;
  total: string;
  credits: Burn[];
  amount_due: string;
  line_count: number;
  closed_at: string;
}

/** Lines as they are stored and hashed, one text each, and what is known of them all: a million fit into memory. */
export class RatedLines {
  readonly texts: string[] = [];
  total: Exact = ZERO;
  /** by place of the line, from 1: serial of the statement that it adjusts */
  readonly adjusting = new Map<number, number>();
  adjusted: Exact = ZERO;

  add(line: StatementLine): void {
    const place = this.texts.length + 1;
    this.total = this.total.plus(line.amount);
    if (line.kind === 'adjustment') {
      this.adjusting.set(place, serialOf(line.adjusts) ?? 0);
      this.adjusted = this.adjusted.plus(line.amount);
    }
    this.texts.push(canonicalJson({ line: place, ...line }));
  }

  /** The lines again, as objects. */
  read(): StatementLine[] {
    return this.texts.map((text) => JSON.parse(text));
  }
}

const MOST_LOADED = 1_000;

/**
 * The lines of one period each of several subscriptions, and of what earlier statements of theirs lack.
 * @param options.before serial of the first statement that is being made; earlier ones are taken into account
 * @param options.since Unix ms; see `Head.adjusted_since`
 */
export async function assembleLines(
  database: Queryable,
  source: UsageSource,
  billed: readonly Billed[],
  options: { before: number; since: number },
): Promise<Map<Billed, RatedLines>> {
  const earlier = await earlierOf(database, billed, options);
  const needs = [...billed, ...[...earlier.values()].flat().map((one) => one.billed)].flatMap(needsOf);
  const usages = await source(needs);
  const numbers = [...earlier.values()].flat().map((one) => one.statement.number);
  const known: Awaited<ReturnType<typeof billedLines>> = new Map();
  for (let i = 0; i < numbers.length; i += MOST_LOADED)
    for (const [number, lines] of await billedLines(database, numbers.slice(i, i + MOST_LOADED), options.before))
      known.set(number, lines);
  return new Map(
    billed.map((one) => {
      const decimals = minorUnitOf(currencyOf(one));
      const lines = new RatedLines();
      for (const line of rateBilled(one, usages, decimals)) lines.add(line);
      for (const { statement, billed: before } of earlier.get(one) ?? [])
        for (const line of adjust(
          statement.number,
          known.get(statement.number) ?? new Map(),
          rateBilled(before, usages, decimals),
          decimals,
        ))
          lines.add(line);
      return [one, lines];
    }),
  );
}

async function earlierOf(
  database: Queryable,
  billed: readonly Billed[],
  { before, since }: { before: number; since: number },
): Promise<Map<Billed, { statement: Adjustable; billed: Billed }[]>> {
  const found = await adjustableStatements(
    database,
    billed.map((one) => ({ id: one.subscription.id, before: one.period.from })),
    since,
    before,
  );
  const bySubscription = Map.groupBy(found, (one) => one.subscriptionId);
  return new Map(
    billed.map((one) => [
      one,
      (bySubscription.get(one.subscription.id) ?? []).flatMap((statement) => {
        const period = periodFrom(rulesOf(one.subscription), statement.from);
        return period === undefined ? [] : [{ statement, billed: billedPeriod(one.subscription, period) }];
      }),
    ]),
  );
}

/** One currency for the life of a subscription. */
export const currencyOf = ({ subscription }: { subscription: Subscription }): string =>
  subscription.phases[0]?.plan.currency ?? 'USD';

/** A statement's head. */
export function headOf(
  { subscription, period, segments }: Billed,
  lines: RatedLines,
  facts: Pick<Head, 'number' | 'revision' | 'replaces' | 'reason' | 'positions' | 'adjusted_since' | 'closed_at'>,
  burns: (payable: Payable) => Burn[],
): Head {
  const currency = currencyOf({ subscription });
  const total = lines.total.toFixed(minorUnitOf(currency));
  const credits = burns({ tenantId: subscription.tenantId, currency, total: lines.total, periodFrom: period.from });
  return {
    ...facts,
    tenant: subscription.customerId,
    tenant_id: subscription.tenantId,
    subscription: subscription.id,
    period: { from: iso(period.from), to: iso(period.to), time_zone: subscription.timeZone },
    currency,
    terms: segments.map((segment) => ({
      plan: `${segment.plan.key}@${segment.plan.version}`,
      name: segment.plan.name,
      from: iso(segment.from),
      to: iso(segment.to),
      trial: segment.trial,
    })),
    total,
    credits,
    amount_due: new Exact(total).minus(burntOf(credits)).toFixed(minorUnitOf(currency)),
    line_count: lines.texts.length,
  };
}

export const iso = (ms: number): string => new Date(ms).toISOString();
