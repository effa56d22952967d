/** What usage and performance pages share: built-in meters asked in one snapshot, over one range, for the same tenants. */
import { BUILTIN_METERS, isZone, type WindowSize } from '../../metering/index.ts';
import { type Meter, type Principal, type Tenant, type TenantDirectory, TidemarkError } from '../../schemas/index.ts';
import { listOf, tenantsOf, timeOf } from '../access.ts';
import type { MeterQuery, MeterRow } from '../meters/meter-query.ts';
import { rowsIn } from '../meters/run-query.ts';
import type { Snapshot } from '../meters/snapshot.ts';

const MINUTE = 60_000;
const DAY = 86_400_000;
/** Rows of a list on a page: the highest ones. */
const MOST = 20;

/** What a page is about. Times are Unix ms. */
export interface PageScope {
  /** null: all */
  tenants: readonly Tenant[] | null;
  from: number;
  to: number;
  windowSize: WindowSize;
  windowTimeZone: string;
}

/** @throws TidemarkError naming the parameter */
export async function scopeOf(
  parameters: Readonly<Record<string, unknown>>,
  principal: Principal,
  directory: TenantDirectory,
  now: number,
): Promise<PageScope> {
  const windowTimeZone = String(parameters.windowTimeZone ?? 'UTC');
  if (!isZone(windowTimeZone))
    throw new TidemarkError('invalid_parameter', `windowTimeZone "${windowTimeZone}" is no IANA time zone`);
  const references = [...listOf(parameters.tenant), ...listOf(parameters.subject)];
  const tenants = await tenantsOf(principal, directory, references);
  const to = timeOf('to', parameters.to) ?? Math.ceil(now / MINUTE) * MINUTE;
  const from = timeOf('from', parameters.from) ?? Math.floor(to / DAY) * DAY - 29 * DAY;
  if (from >= to) throw new TidemarkError('invalid_range', '`from` must be before `to`');
  const size = parameters.windowSize ?? (to - from > 3 * DAY ? 'DAY' : 'HOUR');
  if (size !== 'HOUR' && size !== 'DAY' && size !== 'MONTH')
    throw new TidemarkError('invalid_parameter', 'windowSize must be one of HOUR, DAY, MONTH');
  return { tenants, from, to, windowSize: size, windowTimeZone };
}

/** Asks a built-in meter within a page's scope. */
export function askIn(snapshot: Snapshot, { tenants, from, to, windowTimeZone }: PageScope) {
  return (slug: string, more: Partial<Pick<MeterQuery, 'windowSize' | 'groupBy' | 'bySubject' | 'limit'>> = {}) =>
    rowsIn(snapshot, {
      meter: builtin(slug),
      tenantIds: tenants?.map((tenant) => tenant.id) ?? null,
      from,
      to,
      windowTimeZone,
      windowSize: undefined,
      bySubject: false,
      groupBy: [],
      filters: new Map(),
      quantile: 0.95,
      fillEmpty: false,
      ...(more.groupBy !== undefined || more.bySubject ? { byValue: 'desc' as const, limit: MOST } : {}),
      ...more,
    });
}
export type Ask = ReturnType<typeof askIn>;

function builtin(slug: string): Meter {
  const meter = BUILTIN_METERS.find((one) => one.slug === slug);
  if (meter === undefined) throw new Error(`no built-in meter ${slug}`);
  return meter;
}

export const totalOf = (rows: readonly MeterRow[]): string => rows[0]?.value ?? '0';

/** Rows as objects of their groups, with the value under `name`. */
export const listed = (rows: readonly MeterRow[], groups: readonly string[], name: string) =>
  rows.map((row) => ({
    ...Object.fromEntries(groups.map((group, i) => [group, row.key[i] ?? null])),
    [name]: row.value,
  }));

/** One entry a window that has any of the series; what has none there is 0. */
export function inWindows(series: Readonly<Record<string, readonly MeterRow[]>>) {
  const windows = new Map<number, Record<string, unknown>>();
  const names = Object.keys(series);
  for (const [name, rows] of Object.entries(series))
    for (const { windowStart, windowEnd, value, quantiles } of rows) {
      const entry = windows.get(windowStart) ?? {
        window_start: new Date(windowStart).toISOString(),
        window_end: new Date(windowEnd).toISOString(),
        ...Object.fromEntries(names.map((one) => [one, series[one]?.[0]?.quantiles === undefined ? '0' : null])),
      };
      entry[name] = quantiles ?? value;
      windows.set(windowStart, entry);
    }
  return [...windows].sort(([a], [b]) => a - b).map(([, entry]) => entry);
}

/** What every page says of its scope. */
export const presentScope = ({ tenants, from, to, windowSize, windowTimeZone }: PageScope) => ({
  tenants: tenants?.map((tenant) => tenant.customerId) ?? null,
  from: new Date(from).toISOString(),
  to: new Date(to).toISOString(),
  window_size: windowSize,
  window_time_zone: windowTimeZone,
});
