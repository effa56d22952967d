import {
  AGGREGATIONS,
  type ErrorCode,
  FILTER_OPERATORS,
  isLevel,
  LIMITS,
  type MeterDefinition,
  type MeterFilter,
  TidemarkError,
  VALUE_KINDS,
} from '../schemas/index.ts';
import { decimalFrom } from './exact.ts';
import { attributeOfPath, checkedAttribute, hasControl } from './json-path.ts';
import { isoTime } from './times.ts';

/** A definition as it is sent: OpenMeter's members and ours, unchecked. */
export interface DefinitionInput {
  eventType: string;
  aggregation: string;
  valueProperty?: string | undefined;
  valueKind?: string | undefined;
  quantile?: number | undefined;
  eventFrom?: string | undefined;
  groupBy?: Readonly<Record<string, string>> | undefined;
  filters?: readonly FilterInput[] | undefined;
}
export interface FilterInput {
  property: string;
  op: string;
  value?: unknown;
}

const MOST_DIMENSIONS = 16;
const MOST_FILTERS = 16;
const MOST_VALUES = 100;

/**
 * Checks what a meter is to count and brings JSONPaths to attribute names.
 * @throws TidemarkError `invalid_meter`, `invalid_json_path`, `invalid_filter`, `value_property_missing`,
 *   `value_property_unexpected`, `quantile_unexpected`; `field` names the member
 */
export function readDefinition(input: DefinitionInput): MeterDefinition {
  const aggregation = AGGREGATIONS.find((one) => one === input.aggregation);
  if (aggregation === undefined)
    throw wrong('invalid_meter', 'aggregation', `must be one of ${AGGREGATIONS.join(', ')}`);
  const { eventType, valueProperty, quantile } = input;
  if (eventType === '' || Buffer.byteLength(eventType) > LIMITS.type || hasControl(eventType))
    throw wrong('invalid_meter', 'eventType', `must be an event type of at most ${LIMITS.type} bytes, or "*"`);
  if (aggregation === 'COUNT' && valueProperty !== undefined)
    throw wrong('value_property_unexpected', 'valueProperty', 'COUNT counts events');
  if (aggregation !== 'COUNT' && valueProperty === undefined)
    throw wrong('value_property_missing', 'valueProperty', `${aggregation} needs one`);
  if (quantile !== undefined && aggregation !== 'PERCENTILE')
    throw wrong('quantile_unexpected', 'quantile', `${aggregation} has no quantiles`);
  if (quantile !== undefined && !(quantile > 0 && quantile < 1))
    throw wrong('invalid_meter', 'quantile', 'must be above 0 and below 1');
  const eventFrom = input.eventFrom === undefined ? undefined : isoTime(input.eventFrom);
  if (input.eventFrom !== undefined && eventFrom === undefined)
    throw wrong('invalid_meter', 'eventFrom', 'must be ISO 8601 with a zone');
  const property = valueProperty === undefined ? undefined : attributeOfPath(valueProperty, 'valueProperty');
  return {
    eventType,
    aggregation,
    ...(property === undefined ? {} : { valueProperty: property }),
    ...(isLevel(aggregation) ? { valueKind: valueKindOf(input.valueKind, property ?? '') } : noValueKind(input)),
    ...(quantile === undefined ? {} : { quantile }),
    ...(eventFrom === undefined ? {} : { eventFrom }),
    ...dimensions(input.groupBy ?? {}),
    filters: filters(input.filters ?? []),
  };
}

const wrong = (code: ErrorCode, field: string, detail: string) =>
  new TidemarkError(code, `${field} ${detail}`, { extensions: { field } });

/** A property named `delta` holds changes of a level; any other the level itself. */
function valueKindOf(given: string | undefined, property: string) {
  if (given === undefined) return /(^|\.)delta$/.test(property) ? 'delta' : 'gauge';
  const kind = VALUE_KINDS.find((one) => one === given);
  if (kind === undefined) throw wrong('invalid_meter', 'valueKind', `must be one of ${VALUE_KINDS.join(', ')}`);
  return kind;
}

function noValueKind(input: DefinitionInput): Record<string, never> {
  if (input.valueKind !== undefined)
    throw wrong('invalid_meter', 'valueKind', 'belongs to PEAK and TIME_WEIGHTED_AVG only');
  return {};
}

function dimensions(given: Readonly<Record<string, string>>): Pick<MeterDefinition, 'groupBy' | 'groupByProperties'> {
  const entries = Object.entries(given);
  if (entries.length > MOST_DIMENSIONS) throw wrong('invalid_meter', 'groupBy', `has more than ${MOST_DIMENSIONS}`);
  const renamed: Record<string, string> = {};
  for (const [name, path] of entries) {
    if (!/^[A-Za-z_][A-Za-z0-9_]{0,62}$/.test(name) || name === 'subject')
      throw wrong('invalid_meter', `groupBy.${name}`, 'must be a name of letters, digits and _, and not "subject"');
    const property = attributeOfPath(path, `groupBy.${name}`);
    if (property !== name) renamed[name] = property;
  }
  const groupBy = entries.map(([name]) => name);
  return { groupBy, ...(Object.keys(renamed).length === 0 ? {} : { groupByProperties: renamed }) };
}

function filters(given: readonly FilterInput[]): MeterFilter[] {
  if (given.length > MOST_FILTERS) throw wrong('invalid_filter', 'filters', `has more than ${MOST_FILTERS}`);
  return given.map((filter, i) => {
    const field = `filters[${i}]`;
    const op = FILTER_OPERATORS.find((one) => one === filter.op);
    if (op === undefined) throw wrong('invalid_filter', `${field}.op`, `must be one of ${FILTER_OPERATORS.join(', ')}`);
    const property = filter.property.startsWith('$')
      ? attributeOfPath(filter.property, `${field}.property`)
      : checkedAttribute(filter.property, `${field}.property`);
    const value = filterValue(op, filter.value, `${field}.value`);
    return { property, op, ...(value === undefined ? {} : { value }) };
  });
}

function filterValue(op: MeterFilter['op'], value: unknown, field: string): MeterFilter['value'] {
  if (op === 'exists') {
    if (value === undefined || typeof value === 'boolean') return value;
    throw wrong('invalid_filter', field, 'must be true or false');
  }
  if (op === 'in') {
    const isList = Array.isArray(value) && value.length > 0 && value.length <= MOST_VALUES && value.every(isScalar);
    if (!isList) throw wrong('invalid_filter', field, `must be a list of 1 to ${MOST_VALUES} texts or numbers`);
    return value;
  }
  if (op === 'eq' || op === 'ne') {
    if (isScalar(value) || typeof value === 'boolean') return value;
    throw wrong('invalid_filter', field, 'must be a text, a number or a boolean');
  }
  if (isScalar(value) && isDecimal(value)) return value;
  throw wrong('invalid_filter', field, 'must be a decimal');
}

const isScalar = (value: unknown): value is string | number =>
  (typeof value === 'string' && value.length <= LIMITS.attributeBytes && value.isWellFormed()) ||
  (typeof value === 'number' && Number.isFinite(value));

function isDecimal(value: string | number): boolean {
  try {
    decimalFrom(String(value));
    return true;
  } catch {
    return false;
  }
}
