import { Exact, type Group, show, ZERO } from '../rating/index.ts';
import type { Queryable } from '../usage/ports.ts';
import type { AdjustmentLine, ChargeLine, StatementLine } from './lines.ts';
import { numberOf } from './numbers.ts';

/** A closed statement that a later one may have to adjust. Times are Unix ms. */
export interface Adjustable {
  number: number;
  subscriptionId: string;
  from: number;
  to: number;
}

const ADJUSTABLE = `
  SELECT s.number::float8 AS number, s.subscription_id, (extract(epoch FROM s.period_from) * 1000)::float8 AS "from",
    (extract(epoch FROM s.period_to) * 1000)::float8 AS "to"
  FROM statements AS s JOIN unnest($1::uuid[], $2::timestamptz[]) AS w(id, before) ON w.id = s.subscription_id AND s.period_to <= w.before
  WHERE s.period_to > $3 AND s.number < $4
    AND NOT EXISTS (SELECT FROM statement_voids AS v WHERE v.number = s.number AND v.after_number < $4)
  ORDER BY s.period_from, s.number`;

/**
 * Statements of earlier periods as statement `number` finds them: not void, and not too old to be looked at again.
 * @param wanted subscription, and where its new period begins
 */
export async function adjustableStatements(
  database: Queryable,
  wanted: readonly { id: string; before: number }[],
  since: number,
  number: number,
): Promise<Adjustable[]> {
  const { rows } = await database.query<Adjustable & { subscription_id: string }>(ADJUSTABLE, [
    wanted.map((one) => one.id),
    wanted.map((one) => new Date(one.before).toISOString()),
    new Date(since).toISOString(),
    number,
  ]);
  return rows.map(({ subscription_id: subscriptionId, ...row }) => ({ ...row, subscriptionId }));
}

const BILLED = `
  SELECT l.number::float8 AS number, l.adjusts::float8 AS adjusts, l.content FROM statement_lines AS l
  WHERE (l.number = ANY ($1::bigint[]) AND l.adjusts IS NULL)
    OR (l.adjusts = ANY ($1::bigint[]) AND l.number < $2
      AND NOT EXISTS (SELECT FROM statement_voids AS v WHERE v.number = l.number AND v.after_number < $2))
  ORDER BY l.number, l.line`;

interface BilledLine {
  quantity: Exact;
  events: Exact;
  amount: Exact;
  place: ChargeLine;
}

const identity = (line: { segment: number; charge: string; group?: Group }): string =>
  JSON.stringify([line.segment, line.charge, line.group === undefined ? [] : Object.entries(line.group).sort()]);

/** What statements have billed so far, adjustments of later ones (before statement `number`) included; by number. */
export async function billedLines(
  database: Queryable,
  numbers: readonly number[],
  number: number,
): Promise<Map<number, Map<string, BilledLine>>> {
  const billed = new Map<number, Map<string, BilledLine>>();
  if (numbers.length === 0) return billed;
  const { rows } = await database.query<{ number: number; adjusts: number | null; content: string }>(BILLED, [
    numbers,
    number,
  ]);
  for (const row of rows) {
    const line: StatementLine = JSON.parse(row.content);
    const statement = row.adjusts ?? row.number;
    const lines = billed.get(statement) ?? new Map<string, BilledLine>();
    billed.set(statement, lines);
    const key = identity(line);
    const before = lines.get(key);
    lines.set(key, {
      place: line.kind === 'charge' ? line : line.is,
      quantity: (before?.quantity ?? ZERO).plus(line.quantity),
      events: (before?.events ?? ZERO).plus(line.events ?? 0),
      amount: (before?.amount ?? ZERO).plus(line.amount),
    });
  }
  return billed;
}

/** Lines that bring a statement from what was billed to what is rated now; none where nothing was metered since. */
export function* adjust(
  statement: number,
  billed: ReadonlyMap<string, BilledLine>,
  rated: Iterable<ChargeLine>,
  decimals: number,
): Generator<AdjustmentLine> {
  const gone = new Map(billed);
  for (const is of rated) {
    const key = identity(is);
    gone.delete(key);
    const line = difference(statement, billed.get(key), is, decimals);
    if (line !== undefined) yield line;
  }
  for (const was of gone.values()) {
    const line = difference(statement, was, nothing(was, decimals), decimals);
    if (line !== undefined) yield line;
  }
}

function difference(
  statement: number,
  was: Omit<BilledLine, 'place'> = { quantity: ZERO, events: ZERO, amount: ZERO },
  is: ChargeLine,
  decimals: number,
): AdjustmentLine | undefined {
  const quantity = new Exact(is.quantity).minus(was.quantity);
  const events = new Exact(is.events ?? 0).minus(was.events);
  const amount = new Exact(is.amount).minus(was.amount);
  if (quantity.isZero() && events.isZero() && amount.isZero()) return undefined;
  const { segment, charge, name, meter, model, group, plan, from, to } = is;
  return {
    kind: 'adjustment',
    adjusts: numberOf(statement),
    segment,
    charge,
    ...(name === undefined ? {} : { name }),
    meter,
    model,
    ...(group === undefined ? {} : { group }),
    plan,
    from,
    to,
    quantity: show(quantity),
    ...(is.events === undefined ? {} : { events: show(events) }),
    amount: amount.toFixed(decimals),
    was: {
      quantity: show(was.quantity),
      ...(is.events === undefined ? {} : { events: show(was.events) }),
      amount: was.amount.toFixed(decimals),
    },
    is,
  };
}

/** A group that is not there any more: all its usage was withdrawn. */
function nothing({ place }: BilledLine, decimals: number): ChargeLine {
  const { segment, charge, name, meter, model, group, plan, from, to } = place;
  const zero = ZERO.toFixed(decimals);
  return {
    kind: 'charge',
    segment,
    plan,
    from,
    to,
    charge,
    ...(name === undefined ? {} : { name }),
    meter,
    model,
    ...(group === undefined ? {} : { group }),
    quantity: '0',
    billable: '0',
    steps: [{ rule: 'model', amount: '0' }],
    amount: zero,
  };
}
