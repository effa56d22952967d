/**
 * Metered values recomputed from raw events: the plain meaning of each aggregation, beside which rollups are an
 * optimisation. A replay compares the two.
 */
import { type Meter, type MeterFilter, propertyOf, RESERVED_TYPE, TidemarkError } from '../../schemas/index.ts';
import { type Exact, readDecimal, show, ZERO } from '../rating/index.ts';
import type { FindMeter, Position, RawEvent, ReadRawEvents, UsageRow } from './ports.ts';
import { type Need, questionOf, type Usages } from './usage.ts';

/**
 * Answers one customer's needs from its raw events before the positions, in one pass over them.
 * @throws TidemarkError `unknown_meter`
 */
export async function readRaw(
  ports: { findMeter: FindMeter; readRawEvents: ReadRawEvents },
  needs: readonly Need[],
  positions: readonly Position[],
): Promise<Usages> {
  const counters = new Map<string, Counter>();
  for (const need of needs) {
    if (counters.has(questionOf(need))) continue;
    const meter = await ports.findMeter(need.slug, need.tenantId);
    if (meter === undefined) throw new TidemarkError('unknown_meter', `there is no meter ${need.slug}`);
    counters.set(questionOf(need), new Counter(meter, need));
  }
  const [first] = needs;
  const all = [...counters.values()];
  if (first !== undefined) {
    const from = Math.min(...needs.map((need) => need.from));
    const to = Math.max(...needs.map((need) => need.to));
    for await (const event of ports.readRawEvents({ tenantId: first.tenantId, from, to, positions }))
      if (!event.type.startsWith(RESERVED_TYPE)) for (const counter of all) counter.add(event);
  }
  return (need) => counters.get(questionOf(need))?.rows(need.customerId) ?? [];
}

interface Cell {
  group: Record<string, string | null>;
  events: number;
  sum: Exact;
  least: Exact | undefined;
  most: Exact | undefined;
  last: { at: number; key: string; value: Exact } | undefined;
  members: Set<string>;
}

class Counter {
  #meter: Meter;
  #need: Need;
  #cells = new Map<string, Cell>();

  constructor(meter: Meter, need: Need) {
    this.#meter = meter;
    this.#need = need;
  }

  add(event: RawEvent): void {
    const { from, to } = this.#need;
    const meter = this.#meter;
    if (event.timestamp >= to || event.timestamp < Math.max(from, meter.eventFrom ?? 0)) return;
    if (meter.eventType !== '*' && meter.eventType !== event.type) return;
    const holds = (filter: MeterFilter) => passes(filter, event.attributes.get(filter.property));
    if (!meter.filters.every(holds) || (meter.anyOf !== undefined && !meter.anyOf.some(holds))) return;
    const text = meter.valueProperty === undefined ? undefined : event.attributes.get(meter.valueProperty);
    const isDistinct = meter.aggregation === 'UNIQUE_COUNT';
    const value = isDistinct || text === undefined ? undefined : readDecimal(text);
    if (meter.valueProperty !== undefined && (isDistinct ? text : value) === undefined) return;
    const group: Record<string, string | null> = {};
    for (const name of this.#need.groupBy) group[name] = event.attributes.get(propertyOf(meter, name)) ?? null;
    for (const [name, any] of Object.entries(this.#need.filters))
      if (!any.includes(event.attributes.get(propertyOf(meter, name)) ?? '\0')) return;
    this.#count(this.#cell(group), event, text, value);
  }

  #count(cell: Cell, event: RawEvent, text: string | undefined, value: Exact | undefined): void {
    cell.events++;
    if (this.#meter.aggregation === 'UNIQUE_COUNT' && text !== undefined) cell.members.add(text);
    if (value === undefined) return;
    cell.sum = cell.sum.plus(value);
    if (cell.least === undefined || value.lt(cell.least)) cell.least = value;
    if (cell.most === undefined || value.gt(cell.most)) cell.most = value;
    const { last } = cell;
    if (last === undefined || event.timestamp > last.at || (event.timestamp === last.at && event.key > last.key))
      cell.last = { at: event.timestamp, key: event.key, value };
  }

  #cell(group: Record<string, string | null>): Cell {
    const key = JSON.stringify(this.#need.groupBy.map((name) => group[name]));
    const known = this.#cells.get(key);
    if (known !== undefined) return known;
    const cell: Cell = {
      group,
      events: 0,
      sum: ZERO,
      least: undefined,
      most: undefined,
      last: undefined,
      members: new Set(),
    };
    this.#cells.set(key, cell);
    return cell;
  }

  rows(customerId: string): UsageRow[] {
    return [...this.#cells.values()].flatMap((cell) => {
      const quantity = this.#quantity(cell);
      if (quantity === undefined) return [];
      return [{ customerId, group: cell.group, quantity, events: this.#need.withEvents ? String(cell.events) : '0' }];
    });
  }

  #quantity(cell: Cell): string | undefined {
    const shown = (value: Exact | undefined) => (value === undefined ? undefined : show(value));
    switch (this.#meter.aggregation) {
      case 'COUNT':
        return String(cell.events);
      case 'SUM':
        return show(cell.sum);
      case 'MIN':
        return shown(cell.least);
      case 'MAX':
        return shown(cell.most);
      case 'LATEST':
        return shown(cell.last?.value);
      case 'UNIQUE_COUNT':
        return String(cell.members.size);
      default:
        throw new TidemarkError('unbillable_meter', `${this.#meter.slug} is a ${this.#meter.aggregation}`);
    }
  }
}

function passes({ op, value }: MeterFilter, text: string | undefined): boolean {
  const same = (one: unknown) => text === String(one);
  switch (op) {
    case 'exists':
      return (text !== undefined) === (value !== false);
    case 'eq':
      return same(value);
    case 'ne':
      return !same(value);
    case 'in':
      return (Array.isArray(value) ? value : [value]).some(same);
    default: {
      const measure = readDecimal(text);
      if (measure === undefined) return false;
      const order = measure.cmp(String(value));
      return { gt: order > 0, gte: order >= 0, lt: order < 0, lte: order <= 0 }[op];
    }
  }
}
