/** What a meter says about events, written plainly: no rollups, no order, no partitions. */
import { createHash } from 'node:crypto';
import { Decimal } from 'decimal.js';
import { binOf, quantile } from '../../metering/index.ts';
import { significant } from '../../query-api/meters/decimals.ts';
import type { Aggregation } from '../../schemas/index.ts';

const Exact = Decimal.clone({ precision: 80 });

/** One event, as far as a meter sees it. */
export interface Fact {
  /** what tells series apart */
  series: string;
  /** Unix ms */
  at: number;
  /** decimal literal, or text to be told apart; null: the meter does not count it */
  value: string | null;
  /** claim key, hex */
  key: string;
}

/** The claim key of an event that is not keyed by its source. */
export const claimKey = (tenant: string, key: string): string =>
  createHash('sha256').update(`${tenant}\0${key}`).digest('hex').slice(0, 32);

/** The value of [from, to); undefined where the window is absent. @param all every event of the answer's group, whenever */
export function aggregate(
  aggregation: Aggregation,
  kind: 'gauge' | 'delta' | undefined,
  all: readonly Fact[],
  from: number,
  to: number,
): string | undefined {
  const counted = all.filter((one) => aggregation === 'COUNT' || one.value !== null);
  if (aggregation === 'PEAK' || aggregation === 'TIME_WEIGHTED_AVG')
    return level(aggregation, kind === 'gauge', counted, from, to);
  const facts = counted.filter((one) => one.at >= from && one.at < to);
  if (facts.length === 0) return undefined;
  const values = facts.map((one) => one.value ?? '0');
  const sum = () => values.reduce((total, value) => total.add(value), new Exact(0));
  switch (aggregation) {
    case 'COUNT':
      return String(facts.length);
    case 'SUM':
      return sum().toFixed();
    case 'AVG':
      return significant(sum().div(facts.length).toFixed(40), 20);
    case 'MIN':
      return Exact.min(...values).toFixed();
    case 'MAX':
      return Exact.max(...values).toFixed();
    case 'UNIQUE_COUNT':
      return String(new Set(values).size);
    case 'LATEST': {
      const last = facts.toSorted((a, b) => a.at - b.at || (a.key < b.key ? -1 : 1)).at(-1);
      return new Exact(last?.value ?? 0).toFixed();
    }
    case 'PERCENTILE': {
      const bins = Map.groupBy(values, (value) => binOf(Number(value)));
      const sorted = [...bins].sort(([a], [b]) => a - b);
      const found = quantile(
        sorted.map(([bin]) => bin),
        sorted.map(([, own]) => own.length),
        0.95,
      );
      return String(Number((found ?? 0).toPrecision(6)));
    }
  }
}

function level(
  aggregation: 'PEAK' | 'TIME_WEIGHTED_AVG',
  gauge: boolean,
  facts: readonly Fact[],
  from: number,
  to: number,
): string | undefined {
  const known = facts.filter((one) => one.at < to);
  const series = [...Map.groupBy(known, (one) => one.series).values()].map((own) => changes(own, gauge));
  const moments = [...new Set(known.map((one) => one.at))].sort((a, b) => a - b);
  const levelAt = (at: number) =>
    series.reduce((sum, own) => sum.add(own.findLast(([when]) => when <= at)?.[1] ?? 0), new Exact(0));
  const begin = gauge ? Math.max(from, moments[0] ?? to) : from;
  if (begin >= to) return undefined;
  const marks = [begin, ...moments.filter((at) => at > begin && at < to), to];
  const levels = marks.slice(0, -1).map(levelAt);
  if (!gauge && !moments.some((at) => at >= from) && levels.every((one) => one.isZero())) return undefined;
  if (aggregation === 'PEAK') return Exact.max(...levels).toFixed();
  const area = levels.reduce(
    (sum, one, i) => sum.add(one.mul((marks[i + 1] as number) - (marks[i] as number))),
    new Exact(0),
  );
  return significant(area.div(to - begin).toFixed(40), 20);
}

/** The level of one series just after each moment at which it changes. */
function changes(facts: readonly Fact[], gauge: boolean): [number, Decimal][] {
  let now = new Exact(0);
  return [...Map.groupBy(facts, (one) => one.at)]
    .sort(([a], [b]) => a - b)
    .map(([at, same]) => {
      const values = same.map((one) => new Exact(one.value ?? 0));
      now = gauge ? Exact.max(...values) : values.reduce((sum, value) => sum.add(value), now);
      return [at, now];
    });
}
