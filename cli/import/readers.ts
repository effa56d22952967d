/** Files of usage → log lines of the contract, streamed: memory does not grow with the file. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { createGunzip } from 'node:zlib';
import { TidemarkError } from '../../schemas/index.ts';

export const FORMATS = ['csv', 'ndjson', 'combined'] as const;
export type Format = (typeof FORMATS)[number];

/** A value of a log line: text, or a number's literal (never a double: no digit is lost). */
export type LineValue = string | { literal: string };
export type LogLine = Record<string, LineValue>;

/** One line of the file: the log lines that it makes, or why it makes none. */
export type ReadLine = { number: number; lines: LogLine[] } | { number: number; problem: string };

export interface ReadOptions {
  format: Format;
  /** field → column, or sum of columns (`tokens_consumed=ContextTokens+GeneratedTokens`); CSV only */
  map: ReadonlyMap<string, string>;
  /** fields with the same value in every line; the file's own win */
  set: Readonly<Record<string, string>>;
}

/** Told by content: a combined line has `"GET … HTTP`, an NDJSON line begins with `{`. @throws TidemarkError */
export async function detectFormat(path: string): Promise<Format> {
  for await (const line of linesOf(path)) {
    if (line.trim() === '') continue;
    if (line.trimStart().startsWith('{')) return 'ndjson';
    if (COMBINED.test(line)) return 'combined';
    if (line.includes(',')) return 'csv';
    break;
  }
  throw new TidemarkError('invalid_setting', `the format of ${path} can't be told: give --format ${FORMATS.join('|')}`);
}

/** Reads a file, gzip or plain. Idempotency keys are the caller's matter. */
export async function* readLines(path: string, options: ReadOptions): AsyncGenerator<ReadLine> {
  const read = { csv: csvReader, ndjson: ndjsonReader, combined: combinedReader }[options.format](options);
  let number = 0;
  for await (const line of linesOf(path)) {
    number++;
    if (line.trim() === '') continue;
    let lines: LogLine[] | string | undefined;
    try {
      lines = read(line);
    } catch (error) {
      lines = error instanceof Error ? error.message : String(error);
    }
    if (lines === undefined) continue;
    yield typeof lines === 'string' ? { number, problem: lines } : { number, lines };
  }
}

function linesOf(path: string): AsyncIterable<string> {
  const file = createReadStream(path);
  const input = path.endsWith('.gz') ? file.pipe(createGunzip()) : file;
  file.on('error', (error) => input.destroy(error));
  return createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
}

/** A line's log lines, what is wrong with it, or undefined (a header). */
type LineReader = (line: string) => LogLine[] | string | undefined;

// 1.2.3.4 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b HTTP/1.0" 200 2326 "referer" "agent"
const COMBINED =
  /^(\S+) \S+ (\S+) \[(\d\d)\/([A-Z][a-z]{2})\/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d)\] "((?:[^"\\]|\\.)*)" (\d{3}) (\d+|-)(?: "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)")?/;
const MONTHS = 'JanFebMarAprMayJunJulAugSepOctNovDec';

function combinedReader({ set }: ReadOptions): LineReader {
  return (line) => {
    const match = COMBINED.exec(line);
    if (match === null) return 'not in the combined log format';
    const [
      ,
      address = '',
      user = '-',
      day,
      month = '',
      year,
      time,
      hours,
      minutes,
      request = '',
      status = '',
      bytes = '-',
      referer = '-',
      agent = '-',
    ] = match;
    const at = MONTHS.indexOf(month) / 3 + 1;
    if (!Number.isInteger(at) || at < 1) return `no month "${month}"`;
    const timestamp = Date.parse(`${year}-${String(at).padStart(2, '0')}-${day}T${time}${hours}:${minutes}`);
    if (Number.isNaN(timestamp)) return 'no such time';
    const [method = '', target = ''] = request.split(' ');
    const fields: LogLine = {
      ...set,
      timestamp: new Date(timestamp).toISOString(),
      type: 'api_call',
      user_id: user === '-' ? address : user,
      endpoint: (target.split('?', 1)[0] ?? '').slice(0, 500) || '-',
      method: method.slice(0, 32),
      status_code: { literal: status },
    };
    if (bytes !== '-') fields.bytes = { literal: BigInt(bytes).toString() };
    if (referer !== '-') fields.referer = referer.slice(0, 500);
    if (agent !== '-') fields.user_agent = agent.slice(0, 500);
    return [fields];
  };
}

function ndjsonReader({ set }: ReadOptions): LineReader {
  return (line) => {
    const parsed: unknown = JSON.parse(line, (_key, value: unknown, context?: { source?: string }) =>
      typeof value === 'number' && context?.source !== undefined ? JSON.rawJSON(context.source) : value,
    );
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return 'not a JSON object';
    const fields: LogLine = { ...set };
    for (const [name, value] of Object.entries(parsed))
      fields[name] = typeof value === 'string' ? value : { literal: JSON.stringify(value) };
    return [fields];
  };
}

/** The columns of the Azure LLM inference traces: one call, and its tokens by direction. */
const AZURE_TRACE = ['TIMESTAMP', 'ContextTokens', 'GeneratedTokens'];

function csvReader({ map, set }: ReadOptions): LineReader {
  let header: string[] | undefined;
  return (line) => {
    const cells = parseCsvLine(line);
    if (header === undefined) {
      header = cells.map((cell) => cell.replace(/^\ufeff/, '').trim());
      if (map.size === 0 && !AZURE_TRACE.every((name) => header?.includes(name)) && !header.includes('timestamp'))
        throw new TidemarkError(
          'invalid_setting',
          `columns are ${header.join(', ')}: say which one is the time with --map timestamp=<column>`,
        );
      return undefined;
    }
    if (cells.length !== header.length) return `${cells.length} cells instead of ${header.length}`;
    const row = new Map(header.map((name, i) => [name, cells[i] ?? '']));
    if (map.size === 0 && AZURE_TRACE.every((name) => row.has(name))) return azureLines(row, set);
    return [mappedLine(row, map, set)];
  };
}

function azureLines(row: ReadonlyMap<string, string>, set: Readonly<Record<string, string>>): LogLine[] {
  const timestamp = utc(row.get('TIMESTAMP') ?? '');
  const tokens = (name: string): LineValue => ({ literal: integer(row.get(name) ?? '') });
  return [
    { endpoint: 'llm', ...set, timestamp, type: 'api_call' },
    { ...set, timestamp, type: 'llm_tokens', endpoint: 'context', tokens_consumed: tokens('ContextTokens') },
    { ...set, timestamp, type: 'llm_tokens', endpoint: 'generated', tokens_consumed: tokens('GeneratedTokens') },
  ];
}

function mappedLine(
  row: ReadonlyMap<string, string>,
  map: ReadonlyMap<string, string>,
  set: Readonly<Record<string, string>>,
): LogLine {
  const fields: LogLine = { ...set };
  const all = map.size === 0 ? new Map([...row.keys()].map((name) => [name, name])) : map;
  for (const [field, source] of all) {
    const columns = source.split('+').map((name) => name.trim());
    const cells = columns.map((name) => {
      const cell = row.get(name);
      if (cell === undefined)
        throw new TidemarkError('invalid_setting', `--map ${field}=${source}: there is no column ${name}`);
      return cell;
    });
    const [cell = ''] = cells;
    if (cells.length > 1)
      fields[field] = { literal: cells.reduce((sum, one) => sum + BigInt(integer(one)), 0n).toString() };
    else if (field === 'timestamp') fields[field] = utc(cell);
    else if (cell !== '')
      fields[field] = IDENTIFIERS.has(field) || !/^-?(0|[1-9]\d*)(\.\d+)?$/.test(cell) ? cell : { literal: cell };
  }
  return fields;
}

/** Always text, even where they look like numbers. */
const IDENTIFIERS = new Set(['customer_id', 'idempotency_key', 'request_id', 'user_id', 'type', 'source']);

function integer(text: string): string {
  if (!/^-?\d+$/.test(text.trim())) throw new Error(`"${text}" is no whole number`);
  return BigInt(text.trim()).toString();
}

/** A time without a zone is UTC; digits beyond milliseconds are cut off. */
function utc(text: string): string {
  const match = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?\s*(Z|[+-]\d\d:?\d\d)?$/i.exec(text.trim());
  if (match === null) throw new Error(`"${text}" is no time`);
  const [, date, time, fraction = '', zone = 'Z'] = match;
  const at = Date.parse(
    `${date}T${time}.${fraction.slice(0, 3).padEnd(3, '0')}${zone}`.replace(/T(\d\d:\d\d)\./, 'T$1:00.'),
  );
  if (Number.isNaN(at)) throw new Error(`"${text}" is no time`);
  return new Date(at).toISOString();
}

/** One CSV line (RFC 4180; quoted cells hold no line breaks here). */
export function parseCsvLine(line: string): string[] {
  const cells: string[] = [];
  let at = 0;
  for (;;) {
    if (line[at] === '"') {
      let cell = '';
      let from = at + 1;
      for (;;) {
        const quote = line.indexOf('"', from);
        if (quote < 0) throw new Error('unterminated quoted cell');
        cell += line.slice(from, quote);
        if (line[quote + 1] !== '"') {
          at = quote + 1;
          break;
        }
        cell += '"';
        from = quote + 2;
      }
      cells.push(cell);
    } else {
      const comma = line.indexOf(',', at);
      const end = comma < 0 ? line.length : comma;
      cells.push(line.slice(at, end));
      at = end;
    }
    if (at >= line.length) return cells;
    if (line[at] !== ',') throw new Error('something follows a quoted cell');
    at++;
  }
}

/** A log line as JSON text. */
export function toJson(line: LogLine): string {
  const members = Object.entries(line).map(
    ([name, value]) => `${JSON.stringify(name)}:${typeof value === 'string' ? JSON.stringify(value) : value.literal}`,
  );
  return `{${members.join(',')}}`;
}
