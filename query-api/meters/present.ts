import { type Meter, type MeterEntry, type Principal, propertyOf } from '../../schemas/index.ts';

/** Whether a caller may know of a meter: a tenant's own ones are its and the platform's. */
export const isVisible = (meter: Meter, principal: Principal): boolean =>
  meter.tenantId === undefined || principal.tenant === null || principal.tenant.id === meter.tenantId;

/** A meter in OpenMeter's shape, with our members beside. @param tenant customer_id of the tenant that it is for */
export function presentMeter(entry: MeterEntry, tenant: string | null) {
  const { meter } = entry;
  return {
    id: entry.key,
    slug: meter.slug,
    name: meter.name,
    description: meter.description,
    eventType: meter.eventType,
    aggregation: meter.aggregation,
    ...(meter.valueProperty === undefined ? {} : { valueProperty: pathOf(meter.valueProperty) }),
    ...(meter.valueKind === undefined ? {} : { valueKind: meter.valueKind }),
    ...(meter.quantile === undefined ? {} : { quantile: meter.quantile }),
    ...(meter.eventFrom === undefined ? {} : { eventFrom: new Date(meter.eventFrom).toISOString() }),
    groupBy: Object.fromEntries(meter.groupBy.map((name) => [name, pathOf(propertyOf(meter, name))])),
    filters: meter.filters,
    ...(meter.anyOf === undefined ? {} : { anyOf: meter.anyOf }),
    ...(tenant === null ? {} : { tenant }),
    metadata: entry.metadata,
    builtin: entry.builtin,
    // Until it is complete its numbers are of what was counted so far.
    complete: entry.complete,
    ...(entry.missingDays.length === 0 ? {} : { missingDays: entry.missingDays }),
    ...(entry.next === null ? {} : { changing: true }),
    createdAt: entry.createdAt.toISOString(),
    updatedAt: entry.updatedAt.toISOString(),
  };
}

const pathOf = (name: string): string =>
  /^[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*$/.test(name) ? `$.${name}` : `$['${name.replaceAll(/['\\]/g, '\\$&')}']`;
