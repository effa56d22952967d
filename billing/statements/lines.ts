import { Exact, type Group, type Line, ONCE, rateCharge, type Usage, ZERO } from '../rating/index.ts';
import type { Period } from '../subscriptions/periods.ts';
import { type Segment, segmentsOf } from '../subscriptions/segments.ts';
import type { Subscription } from '../subscriptions/subscriptions.ts';
import type { UsageRow } from '../usage/ports.ts';
import { type Need, needOf, type Usages } from '../usage/usage.ts';

/** A line of a statement for its own period. */
export type ChargeLine = { kind: 'charge'; segment: number; plan: string; from: string; to: string } & Line;

/** A line that brings an earlier statement up to date. Quantities and amounts are what is added to it. */
export interface AdjustmentLine {
  kind: 'adjustment';
  /** number of the statement that is adjusted */
  adjusts: string;
  segment: number;
  charge: string;
  name?: string;
  meter: string | null;
  model: Line['model'];
  group?: Group;
  plan: string;
  from: string;
  to: string;
  quantity: string;
  events?: string;
  amount: string;
  was: { quantity: string; events?: string; amount: string };
  /** the line as it would be rated now */
  is: ChargeLine;
}
export type StatementLine = ChargeLine | AdjustmentLine;

/** A period of a subscription that is to be rated. */
export interface Billed {
  subscription: Subscription;
  period: Period;
  segments: Segment[];
}

export const billedPeriod = (subscription: Subscription, period: Period): Billed => ({
  subscription,
  period,
  segments: segmentsOf(subscription, period),
});

/** Every metered value that rating it needs. */
export const needsOf = ({ subscription, segments }: Billed): Need[] =>
  segments.flatMap((segment) => segment.charges.flatMap((charge) => needOf(subscription, segment, charge) ?? []));

/**
 * Rates a period: segments in order of time, charges in the plan's order, groups in order of their values. One line at a
 * time: there may be a million.
 */
export function* rateBilled(
  { subscription, segments }: Billed,
  usages: Usages,
  decimals: number,
): Generator<ChargeLine> {
  for (const [i, segment] of segments.entries()) {
    if (segment.trial) continue;
    const place = {
      kind: 'charge' as const,
      segment: i + 1,
      plan: `${segment.plan.key}@${segment.plan.version}`,
      from: new Date(segment.from).toISOString(),
      to: new Date(segment.to).toISOString(),
    };
    for (const charge of segment.charges) {
      const need = needOf(subscription, segment, charge);
      const rows = need === undefined ? undefined : usages(need);
      for (const usage of usageRows(rows, need?.groupBy ?? []))
        yield { ...place, ...rateCharge(charge, usage, decimals, segment.fraction) };
    }
  }
}

function* usageRows(rows: readonly UsageRow[] | undefined, groupBy: readonly string[]): Generator<Usage> {
  if (rows === undefined) {
    yield ONCE;
    return;
  }
  if (groupBy.length === 0) {
    const [row] = rows;
    yield { quantity: new Exact(row?.quantity ?? 0), events: new Exact(row?.events ?? 0) };
    return;
  }
  // By code units, so that the order is the same on any machine and database.
  const ordered = rows.map((row) => ({ row, order: JSON.stringify(groupBy.map((name) => row.group[name])) }));
  ordered.sort((a, b) => (a.order < b.order ? -1 : 1));
  for (const { row } of ordered)
    yield {
      quantity: new Exact(row.quantity),
      events: row.events === '0' ? ZERO : new Exact(row.events),
      group: row.group,
    };
}
