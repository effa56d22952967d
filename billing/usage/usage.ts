import { type Meter, TidemarkError } from '../../schemas/index.ts';
import { type CheckedCharge, type Exact, ZERO } from '../rating/index.ts';
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

/**
 * Reads rollups: one query for a meter and range, however many customers and charges ask, where its parts add up to the
 * answers; else one for each question. @throws TidemarkError `unknown_meter`
 */
export async function readRollups(
  database: Queryable,
  ports: { findMeter: FindMeter; readUsage: ReadUsage },
  needs: readonly Need[],
): Promise<Usages> {
  const answers = new Map<string, Map<string, readonly UsageRow[]>>();
  const remember = (need: Need, customerId: string, rows: readonly UsageRow[]) => {
    const question = questionOf(need);
    const known = answers.get(question);
    if (known === undefined) answers.set(question, new Map([[customerId, rows]]));
    else known.set(customerId, rows);
  };
  for (const { meter, asking } of await byMeterAndRange(ports.findMeter, needs)) {
    const questions = [...Map.groupBy(asking, questionOf).values()];
    for (const group of isAdditive(meter) ? [questions] : questions.map((one) => [one])) {
      const wanted = group.flatMap((own) => own.slice(0, 1));
      const [first] = wanted;
      if (first === undefined || first.from >= first.to) continue;
      const isSingle = wanted.length === 1;
      const rows = await ports.readUsage(database, {
        meter,
        tenantIds: [...new Set(group.flat().map((need) => need.tenantId))],
        from: first.from,
        to: first.to,
        filters: new Map(isSingle ? Object.entries(first.filters) : []),
        groupBy: isSingle ? first.groupBy : dimensionsOf(wanted),
        withEvents: wanted.some((need) => need.withEvents),
      });
      for (const [customerId, parts] of Map.groupBy(rows, (row) => row.customerId))
        for (const need of wanted) remember(need, customerId, isSingle ? parts : addUp(need, parts));
    }
  }
  return (need) => answers.get(questionOf(need))?.get(need.customerId) ?? [];
}

const isAdditive = ({ aggregation }: Meter): boolean => aggregation === 'COUNT' || aggregation === 'SUM';

/** Every dimension that the questions tell apart. */
const dimensionsOf = (needs: readonly Need[]): string[] => [
  ...new Set(needs.flatMap((need) => [...need.groupBy, ...Object.keys(need.filters)])),
];

/** One question's answer from parts that tell more dimensions apart than it asks for. */
function addUp(need: Need, parts: readonly UsageRow[]): UsageRow[] {
  const filters = Object.entries(need.filters);
  const sums = new Map<string, { like: UsageRow; quantity: Exact; events: Exact }>();
  for (const part of parts) {
    if (!filters.every(([name, any]) => any.some((value) => value === part.group[name]))) continue;
    const key = JSON.stringify(need.groupBy.map((name) => part.group[name]));
    const known = sums.get(key);
    sums.set(key, {
      like: part,
      quantity: (known?.quantity ?? ZERO).plus(part.quantity),
      events: (known?.events ?? ZERO).plus(part.events),
    });
  }
  return [...sums.values()].map(({ like, quantity, events }) => ({
    customerId: like.customerId,
    group: Object.fromEntries(need.groupBy.map((name) => [name, like.group[name] ?? null])),
    quantity: quantity.toFixed(),
    events: need.withEvents ? events.toFixed() : '0',
  }));
}

/** A tenant may have a meter of its own under a slug. */
async function byMeterAndRange(
  findMeter: FindMeter,
  needs: readonly Need[],
): Promise<Iterable<{ meter: Meter; asking: Need[] }>> {
  const found = new Map<string, { meter: Meter; asking: Need[] }>();
  for (const need of needs) {
    const meter = await findMeter(need.slug, need.tenantId);
    if (meter === undefined) throw new TidemarkError('unknown_meter', `there is no meter ${need.slug}`);
    const key = `${meter.id} ${need.from} ${need.to}`;
    const known = found.get(key);
    if (known === undefined) found.set(key, { meter, asking: [need] });
    else known.asking.push(need);
  }
  return found.values();
}
