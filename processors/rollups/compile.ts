import { compareDecimals, Decimal, decimalFrom, parseDecimal } from '../../metering/index.ts';
import { ATTRIBUTE_COLUMNS, KIND, type Meter, type MeterFilter, propertyOf } from '../../schemas/index.ts';
import { ABSENT, type AttributeNames, type EventView } from '../event-view.ts';

/** A meter made ready for one owner's event view: names are slots, filters are functions. */
export interface CompiledMeter {
  meter: Meter;
  /** slots of the groupBy attributes */
  groupSlots: readonly number[];
  /** slot of the value, or -1 where there is none */
  valueSlot: number;
  /** 16 bytes of the only tenant that it counts; null: every tenant */
  tenantId: Uint8Array | null;
  /** earlier events are not counted, Unix ms */
  eventFrom: number;
  counts(event: EventView): boolean;
}

/** Every attribute that a column or a meter needs by name. */
export const attributeNamesOf = (meters: readonly Meter[]): string[] => [
  ...new Set([...ATTRIBUTE_COLUMNS.map((column) => column.name), ...meterAttributes(meters)]),
];

/** Every attribute that the meters read. */
export function meterAttributes(meters: readonly Meter[]): string[] {
  const names = new Set<string>();
  for (const meter of meters) {
    for (const name of meter.groupBy) names.add(propertyOf(meter, name));
    if (meter.valueProperty !== undefined) names.add(meter.valueProperty);
    for (const filter of [...meter.filters, ...(meter.anyOf ?? [])]) names.add(filter.property);
  }
  return [...names];
}

export function compileMeter(meter: Meter, names: AttributeNames): CompiledMeter {
  const all = meter.filters.map((filter) => compileFilter(filter, names));
  const any = meter.anyOf?.map((filter) => compileFilter(filter, names));
  const value = meter.valueProperty;
  return {
    meter,
    groupSlots: meter.groupBy.map((name) => names.slotOf(propertyOf(meter, name))),
    valueSlot: value === undefined ? -1 : names.slotOf(value),
    tenantId: meter.tenantId === undefined ? null : Buffer.from(meter.tenantId.replaceAll('-', ''), 'hex'),
    eventFrom: meter.eventFrom ?? Number.NEGATIVE_INFINITY,
    counts:
      all.length === 0 && any === undefined
        ? () => true
        : (event) => all.every((test) => test(event)) && (any === undefined || any.some((test) => test(event))),
  };
}

/**
 * Reads an attribute as a measure: a number, or a string that is a decimal literal.
 * @returns false when the event has no such number
 */
export function readMeasure(event: EventView, slot: number, into: Decimal): boolean {
  const kind = event.kinds[slot];
  if (kind === KIND.long) {
    into.setInteger(event.longs[slot] as number);
    return true;
  }
  if (kind !== KIND.decimal && kind !== KIND.string) return false;
  return parseDecimal(event.bytes, event.starts[slot] as number, event.ends[slot] as number, into);
}

/** An attribute as a dimension. */
export function readDimension(event: EventView, slot: number): string | null {
  switch (event.kinds[slot]) {
    case KIND.string:
    case KIND.decimal:
      return Buffer.from(event.bytes.buffer, event.bytes.byteOffset, event.bytes.byteLength).toString(
        'utf8',
        event.starts[slot],
        event.ends[slot],
      );
    case KIND.long:
      return String(event.longs[slot]);
    case KIND.boolean:
      return event.longs[slot] === 1 ? 'true' : 'false';
    default:
      return null;
  }
}

type Test = (event: EventView) => boolean;

function compileFilter(filter: MeterFilter, names: AttributeNames): Test {
  const slot = names.slotOf(filter.property);
  const has: Test = (event) => event.kinds[slot] !== ABSENT;
  const { value } = filter;
  switch (filter.op) {
    case 'exists':
      return value === false ? (event) => !has(event) : has;
    case 'eq':
      return (event) => has(event) && sameText(event, slot, String(value));
    case 'ne':
      return (event) => !has(event) || !sameText(event, slot, String(value));
    case 'in': {
      const list = (Array.isArray(value) ? value : [value]).map(String);
      return (event) => has(event) && list.some((text) => sameText(event, slot, text));
    }
    default: {
      const bound = decimalFrom(String(value));
      const measure = new Decimal();
      const holds = COMPARISONS[filter.op];
      return (event) => readMeasure(event, slot, measure) && holds(compareDecimals(measure, bound));
    }
  }
}

const COMPARISONS = {
  gt: (order: number) => order > 0,
  gte: (order: number) => order >= 0,
  lt: (order: number) => order < 0,
  lte: (order: number) => order <= 0,
};

function sameText(event: EventView, slot: number, text: string): boolean {
  const kind = event.kinds[slot];
  if (kind === KIND.string || kind === KIND.decimal) {
    // Lengths differ nearly always: no string is made for those. (A multi-byte text is longer in bytes.)
    if ((event.ends[slot] as number) - (event.starts[slot] as number) < text.length) return false;
  }
  return readDimension(event, slot) === text;
}
