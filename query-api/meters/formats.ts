/** How rows of an answer are written: JSON (OpenMeter's, or exact), CSV, NDJSON. Text is made by hand: answers have many rows. */
import { csvCell } from '../../schemas/index.ts';
import type { MeterQuery, MeterRow } from './meter-query.ts';

export const EXACT = 'application/vnd.tidemark+json';

/** A way to write rows: what stands before, between and behind them. */
export interface RowFormat {
  contentType: string;
  head: string;
  between: string;
  tail(next: string | null): string;
  row(row: MeterRow): string;
}

type Answered = Pick<MeterQuery, 'bySubject' | 'groupBy' | 'windowSize' | 'limit'>;

/** The format that an Accept header asks for. @param explain JSON text of the plan, where asked for */
export function formatFor(
  accept: string,
  query: Answered,
  range: { from: number | undefined; to: number | undefined },
  explain: string | undefined,
): RowFormat {
  if (accept.includes('text/csv')) return csv(query);
  if (accept.includes('application/x-ndjson')) return ndjson(query);
  return json(query, range, accept.includes(EXACT), explain);
}

/** ISO texts of times; rows that follow each other share them. */
function isoCache(): (ms: number) => string {
  const known = new Map<number, string>();
  return (ms) => {
    let text = known.get(ms);
    if (text !== undefined) return text;
    if (known.size > 4_096) known.clear();
    text = new Date(ms).toISOString();
    known.set(ms, text);
    return text;
  };
}

function rowText({ bySubject, groupBy }: Answered, exact: boolean): (row: MeterRow) => string {
  const iso = isoCache();
  const names = groupBy.map((name) => JSON.stringify(name));
  const texts = new Map<string | null, string>([[null, 'null']]);
  const json = (value: string | null): string => {
    let text = texts.get(value);
    if (text !== undefined) return text;
    if (texts.size > 4_096) texts.clear();
    text = JSON.stringify(value);
    texts.set(value, text);
    return text;
  };
  const first = bySubject ? 1 : 0;
  return ({ windowStart, windowEnd, key, value, quantiles }) => {
    let groups = '';
    for (let i = 0; i < names.length; i++) groups += `${i === 0 ? '' : ','}${names[i]}:${json(key[first + i] ?? null)}`;
    const sketch =
      quantiles === undefined
        ? ''
        : `,"quantiles":{"p50":${quantiles.p50},"p95":${quantiles.p95},"p99":${quantiles.p99}}`;
    // A JSON number with every digit it has, or the same as a string.
    return `{"value":${exact ? `"${value}"` : value},"windowStart":"${iso(windowStart)}","windowEnd":"${iso(windowEnd)}","subject":${bySubject ? json(key[0] ?? null) : 'null'},"groupBy":{${groups}}${sketch}}`;
  };
}

function json(
  query: Answered,
  { from, to }: { from: number | undefined; to: number | undefined },
  exact: boolean,
  explain: string | undefined,
): RowFormat {
  const iso = (ms: number) => new Date(ms).toISOString();
  const about = [
    ...(from === undefined ? [] : [`"from":"${iso(from)}"`]),
    ...(to === undefined ? [] : [`"to":"${iso(to)}"`]),
    ...(query.windowSize === undefined ? [] : [`"windowSize":"${query.windowSize}"`]),
    '"data":[',
  ];
  return {
    contentType: exact ? EXACT : 'application/json',
    head: `{${about.join(',')}`,
    between: ',',
    tail: (next) =>
      `]${query.limit === undefined ? '' : `,"next":${JSON.stringify(next)}`}${explain === undefined ? '' : `,"explain":${explain}`}}`,
    row: rowText(query, exact),
  };
}

/** A row a line; values are decimal strings. */
const ndjson = (query: Answered): RowFormat => ({
  contentType: 'application/x-ndjson',
  head: '',
  between: '\n',
  tail: () => '\n',
  row: rowText(query, true),
});

function csv({ bySubject, groupBy }: Answered): RowFormat {
  const iso = isoCache();
  const header = ['window_start', 'window_end', ...(bySubject ? ['subject'] : []), ...groupBy, 'value'];
  return {
    contentType: 'text/csv; charset=utf-8',
    head: `${header.map(csvCell).join(',')}\r\n`,
    between: '\r\n',
    tail: () => '\r\n',
    row: ({ windowStart, windowEnd, key, value }) =>
      [iso(windowStart), iso(windowEnd), ...key.map((cell) => csvCell(cell ?? '')), value].join(','),
  };
}
