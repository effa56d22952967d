import { type Meter, TidemarkError } from '../../schemas/index.ts';
import type { CheckedCharge } from '../rating/index.ts';
import type { Segment } from '../subscriptions/segments.ts';
import type { FindMeter, Queryable, ReadUsage, UsageRow } from './ports.ts';

/** What one charge of one customer's segment must know. */
export interface Need {
  tenantId: string;
  customerId: string;
  slug: string;
  from: number;
  to: number;
  filters: Readonly<Record<string, readonly string[]>>;
  groupBy: readonly string[];
  withEvents: boolean;
}

/** Metered values of needs that were loaded together. */
export type Usages = (need: Need) => readonly UsageRow[];

/** @returns undefined for a flat charge, and in a trial */
export function needOf(
  customer: { tenantId: string; customerId: string },
  segment: Segment,
  { charge, model }: CheckedCharge,
): Need | undefined {
  if (segment.trial || model.model === 'flat' || charge.meter === undefined) return undefined;
  return {
    tenantId: customer.tenantId,
    customerId: customer.customerId,
    slug: charge.meter,
    from: segment.usage.from,
    to: segment.usage.to,
    filters: charge.filters ?? {},
    groupBy: charge.group_by ?? [],
    withEvents: model.model === 'percentage',
  };
}

/** The same question about different customers. */
export const questionOf = (need: Need): string =>
  JSON.stringify([need.slug, need.from, need.to, need.filters, need.groupBy, need.withEvents]);

/** Reads rollups: one query for each question, whoever many customers ask it. @throws TidemarkError `unknown_meter` */
export async function readRollups(
  database: Queryable,
  ports: { findMeter: FindMeter; readUsage: ReadUsage },
  needs: readonly Need[],
): Promise<Usages> {
  const answers = new Map<string, Map<string, UsageRow[]>>();
  const questions = Map.groupBy(needs, questionOf);
  for (const [question, asking] of questions) {
    const byCustomer = new Map<string, UsageRow[]>();
    for (const [meter, some] of await byMeter(ports.findMeter, asking)) {
      const [one] = some;
      if (one === undefined || one.from >= one.to) continue;
      const rows = await ports.readUsage(database, {
        meter,
        tenantIds: [...new Set(some.map((need) => need.tenantId))],
        from: one.from,
        to: one.to,
        filters: new Map(Object.entries(one.filters)),
        groupBy: one.groupBy,
        withEvents: one.withEvents,
      });
      for (const row of rows) {
        const own = byCustomer.get(row.customerId);
        if (own === undefined) byCustomer.set(row.customerId, [row]);
        else own.push(row);
      }
    }
    answers.set(question, byCustomer);
  }
  return (need) => answers.get(questionOf(need))?.get(need.customerId) ?? [];
}

/** A tenant may have a meter of its own under a slug. */
async function byMeter(findMeter: FindMeter, needs: readonly Need[]): Promise<Map<Meter, Need[]>> {
  const found = new Map<number, { meter: Meter; needs: Need[] }>();
  for (const need of needs) {
    const meter = await findMeter(need.slug, need.tenantId);
    if (meter === undefined) throw new TidemarkError('unknown_meter', `there is no meter ${need.slug}`);
    const known = found.get(meter.id);
    if (known === undefined) found.set(meter.id, { meter, needs: [need] });
    else known.needs.push(need);
  }
  return new Map([...found.values()].map(({ meter, needs: some }) => [meter, some]));
}
