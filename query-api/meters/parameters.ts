import { Type } from 'typebox';
import { isZone, WINDOW_SIZES, type WindowSize } from '../../metering/index.ts';
import { type Meter, type Principal, type TenantDirectory, TidemarkError } from '../../schemas/index.ts';
import { fromCursor, limitOf, listOf, tenantsOf, timeOf } from '../access.ts';
import type { MeterQuery, RowPlace } from './meter-query.ts';
import { ordersByValue } from './statements.ts';

const Strings = Type.Union([Type.String(), Type.Array(Type.String())]);
const Shared = {
  clientId: Type.Optional(Type.String({ description: 'ignored' })),
  from: Type.Optional(Type.String({ description: 'ISO 8601, whole minute; default: the first minute with data' })),
  to: Type.Optional(Type.String({ description: 'ISO 8601, whole minute, exclusive' })),
  windowSize: Type.Optional(Type.String({ description: `${WINDOW_SIZES.join(', ')}; absent: the whole range` })),
  windowTimeZone: Type.Optional(Type.String({ description: 'IANA time zone; default UTC' })),
  subject: Type.Optional(Strings),
  filterCustomerId: Type.Optional(Strings),
  groupBy: Type.Optional(Strings),
  empty: Type.Optional(Type.String({ description: '`zero`: windows without data are zero' })),
  orderBy: Type.Optional(Type.String({ description: '`window` (then subject and groups) or `value`' })),
  order: Type.Optional(Type.String({ description: 'of `orderBy=value`: `desc` (default) or `asc`' })),
  cursor: Type.Optional(Type.String({ description: 'what the page before gave as `next`' })),
};
/** Of `GET …/query`. */
export const QueryParameters = Type.Object({
  ...Shared,
  filterGroupBy: Type.Optional(Type.Unknown({ description: 'filterGroupBy[endpoint]=/x, repeatable' })),
  quantile: Type.Optional(Type.String({ description: 'of a PERCENTILE meter; default 0.95' })),
  top: Type.Optional(Type.String({ description: 'only the groups with the so many highest values over the range' })),
  limit: Type.Optional(Type.String({ description: 'rows of a page, up to 10,000' })),
  explain: Type.Optional(Type.String({ description: '`true`: which rollups were read' })),
});
/** Of `POST …/query`: the same, as JSON. */
export const QueryBody = Type.Object({
  ...Shared,
  filterGroupBy: Type.Optional(Type.Record(Type.String(), Strings)),
  advancedMeterGroupByFilters: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  quantile: Type.Optional(Type.Number()),
  top: Type.Optional(Type.Integer()),
  limit: Type.Optional(Type.Integer()),
  explain: Type.Optional(Type.Boolean()),
});

const MOST_ROWS = 10_000;

/** A checked query with what concerns only how it is answered. */
export interface ParsedQuery extends MeterQuery {
  explain: boolean;
}

/**
 * Checks the parameters of a meter query, from a URL or a JSON body.
 * @throws TidemarkError naming the parameter
 */
export async function parseMeterQuery(
  meter: Meter,
  parameters: Readonly<Record<string, unknown>>,
  principal: Principal,
  directory: TenantDirectory,
): Promise<ParsedQuery> {
  requireKnown(parameters);
  const windowTimeZone = String(parameters.windowTimeZone ?? 'UTC');
  if (!isZone(windowTimeZone))
    throw new TidemarkError('invalid_parameter', `windowTimeZone "${windowTimeZone}" is no IANA time zone`);
  const names = listOf(parameters.groupBy).flatMap((name) => name.split(','));
  const groupBy = [...new Set(names.filter((name) => name !== 'subject' && name !== ''))];
  const filters = filtersOf(parameters);
  for (const name of [...groupBy, ...filters.keys()])
    if (!meter.groupBy.includes(name))
      throw new TidemarkError(
        'unknown_group',
        `${meter.slug} has no group-by "${name}"; it has ${['subject', ...meter.groupBy].join(', ')}`,
      );
  const references = [...listOf(parameters.subject), ...listOf(parameters.filterCustomerId)];
  const tenants = await tenantsOf(principal, directory, references);
  const bySubject = names.includes('subject') || listOf(parameters.subject).length > 0;
  const orderBy = choiceOf('orderBy', parameters.orderBy, ['window', 'value']) ?? 'window';
  const order = choiceOf('order', parameters.order, ['asc', 'desc']);
  if (order !== undefined && orderBy === 'window')
    throw new TidemarkError('invalid_parameter', 'order goes with orderBy=value');
  const from = timeOf('from', parameters.from);
  const to = timeOf('to', parameters.to);
  const fillEmpty = choiceOf('empty', parameters.empty, ['zero']) === 'zero';
  const byValue = orderBy === 'value' && !fillEmpty ? (order ?? 'desc') : undefined;
  const limit = parameters.limit === undefined ? undefined : limitOf(parameters.limit, MOST_ROWS, MOST_ROWS);
  return {
    meter,
    tenantIds: tenants?.map((tenant) => tenant.id) ?? null,
    from,
    to,
    windowSize: choiceOf('windowSize', parameters.windowSize, WINDOW_SIZES) as WindowSize | undefined,
    windowTimeZone,
    bySubject,
    groupBy,
    filters,
    quantile: quantileOf(meter, parameters.quantile),
    fillEmpty,
    byValue,
    // What is merged here is sorted here: a page at a time.
    limit: limit ?? (byValue === undefined || ordersByValue(meter.aggregation) ? undefined : MOST_ROWS),
    top: parameters.top === undefined ? undefined : topOf(parameters.top),
    after: cursorOf(parameters.cursor, (bySubject ? 1 : 0) + groupBy.length, byValue !== undefined),
    explain: choiceOf('explain', parameters.explain, ['true', 'false']) === 'true',
  };
}

/** Besides those of the schemas: `filterGroupBy[name]`, and what a stream goes on after. */
const KNOWN = new Set([
  ...Object.keys(QueryParameters.properties),
  ...Object.keys(QueryBody.properties),
  'last_event_id',
]);

/** A misspelt filter would be answered with everybody's numbers. */
function requireKnown(parameters: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(parameters))
    if (value !== undefined && !KNOWN.has(name) && !FILTER.test(name))
      throw new TidemarkError(
        'invalid_parameter',
        `there is no parameter "${name}"; there are ${[...KNOWN].join(', ')}`,
      );
  if (parameters.filterGroupBy !== undefined && !isObject(parameters.filterGroupBy))
    throw new TidemarkError('invalid_parameter', 'filterGroupBy names its group: filterGroupBy[model]=x');
}

const FILTER = /^filterGroupBy\[([^\]]+)\](?:\[\d*\])?$/;

function choiceOf<const T extends string>(name: string, value: unknown, of: readonly T[]): T | undefined {
  if (value === undefined) return undefined;
  const found = of.find((one) => one === String(value));
  if (found === undefined) throw new TidemarkError('invalid_parameter', `${name} must be one of ${of.join(', ')}`);
  return found;
}

function topOf(value: unknown): number {
  const top = Number(value);
  if (!Number.isInteger(top) || top < 1 || top > 1000)
    throw new TidemarkError('invalid_parameter', 'top must be from 1 to 1000');
  return top;
}

function quantileOf(meter: Meter, value: unknown): number {
  const quantile = Number(value ?? meter.quantile ?? 0.95);
  if (value !== undefined && meter.aggregation !== 'PERCENTILE')
    throw new TidemarkError('quantile_without_sketch', `${meter.slug} is a ${meter.aggregation}: it has no quantiles`);
  if (value === '' || !(quantile >= 0 && quantile <= 1))
    throw new TidemarkError('invalid_parameter', 'quantile must be from 0 to 1');
  return quantile;
}

/** A page's end: the window's start, the row's key, and its value where rows are ordered by it. */
function cursorOf(cursor: unknown, keys: number, byValue: boolean): RowPlace | undefined {
  if (cursor === undefined) return undefined;
  const [windowStart, key, value] =
    fromCursor(cursor, byValue ? ['number', 'string', 'string'] : ['number', 'string']) ?? [];
  const parts: unknown = typeof key === 'string' ? parseJson(key) : undefined;
  if (
    typeof windowStart === 'number' &&
    Array.isArray(parts) &&
    parts.length === keys &&
    parts.every((part): part is string | null => part === null || isText(part)) &&
    (value === undefined || (typeof value === 'string' && DECIMAL.test(value)))
  )
    return { windowStart, key: parts, value };
  throw new TidemarkError('invalid_cursor', 'use the cursor of the previous page unchanged, with the same parameters');
}

/** What the database's numeric takes, and no sum exceeds. */
const DECIMAL = /^-?\d{1,1000}(?:\.\d{1,1000})?$/;
const isText = (part: unknown): part is string =>
  typeof part === 'string' && part.isWellFormed() && !part.includes('\0');

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * `filterGroupBy[name]=value` (deep object, as the client sends it), repeatable; or, in a body, an object of values or
 * lists; and OpenMeter's advanced filters with `$eq` and `$in`.
 */
function filtersOf(parameters: Readonly<Record<string, unknown>>): Map<string, string[]> {
  const filters = new Map<string, string[]>();
  const add = (name: string, values: readonly string[]) => filters.set(name, [...(filters.get(name) ?? []), ...values]);
  for (const [key, value] of Object.entries(parameters)) {
    const name = FILTER.exec(key)?.[1];
    if (name !== undefined) add(name, listOf(value));
  }
  const { filterGroupBy, advancedMeterGroupByFilters: advanced } = parameters;
  if (isObject(filterGroupBy)) for (const [name, value] of Object.entries(filterGroupBy)) add(name, listOf(value));
  if (isObject(advanced))
    for (const [name, value] of Object.entries(advanced)) {
      const operators = isObject(value) ? Object.entries(value) : [];
      const [operator, operand] = operators[0] ?? [];
      if (operators.length !== 1 || (operator !== '$eq' && operator !== '$in'))
        throw new TidemarkError(
          'invalid_parameter',
          `advancedMeterGroupByFilters.${name} must have one of $eq and $in`,
        );
      add(name, listOf(operand));
    }
  for (const value of [...filters.values()].flat())
    if (value.includes('\0') || !value.isWellFormed())
      throw new TidemarkError('invalid_parameter', 'a filter has a character that no event can have');
  return filters;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
