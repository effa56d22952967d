import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from 'vitest';
import { costOf } from '../../cli/demo/price.ts';
import { makeDay } from '../../cli/demo/sample.ts';
import { detectFormat, parseCsvLine, type ReadLine, readLines, toJson } from '../../cli/import/readers.ts';
import { murmur2 } from '../../ingest/index.ts';
import { significant } from '../../query-api/meters/decimals.ts';
import { HEADER_V1, readSettings } from '../../schemas/index.ts';
import { generateKey } from '../../sinks/index.ts';
import { importsOf, violations } from '../support/rooms.ts';

test('murmur2 agrees with the Java client of Kafka', () => {
  // Vectors of its UtilsTest.
  const vectors = {
    '21': -973932308,
    foobar: -790332482,
    'a-little-bit-long-string': -985981536,
    'a-little-bit-longer-string': -1486304829,
    lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8: -58897971,
    abc: 479470107,
  };
  for (const [text, hash] of Object.entries(vectors)) expect(murmur2(Buffer.from(text))).toBe(hash);
});

test('the fingerprint of version 1 never changes: records on logs are read by it', () => {
  expect(HEADER_V1.toString('hex')).toBe('c301c122d99c61357807');
});

describe('settings', () => {
  test('have defaults', () => {
    expect(readSettings({})).toMatchObject({ PORT: 8080, HOST: '127.0.0.1', UNKNOWN_TENANTS: 'create' });
  });
  test('that are wrong are all named at once, secrets without their value', () => {
    const read = () =>
      readSettings({
        PORT: 'x',
        UNKNOWN_TENANTS: 'maybe',
        DATABASE_URL: 'mysql://u:hunter2@h/d',
        TIDEMARK_ADMIN_KEY: 'short',
      });
    expect(read).toThrow(/PORT .*UNKNOWN_TENANTS|PORT[\s\S]*DATABASE_URL/);
    expect(read).toThrow(
      expect.objectContaining({ code: 'invalid_setting', message: expect.not.stringContaining('hunter2') }),
    );
    for (const name of ['PORT', 'UNKNOWN_TENANTS', 'DATABASE_URL', 'TIDEMARK_ADMIN_KEY'])
      expect(read).toThrow(new RegExp(name));
  });
  test('of Kafka: a list of brokers, each with its port', () => {
    expect(readSettings({ KAFKA_BROKERS: 'a:9092, b.example:9093' }).KAFKA_BROKERS).toEqual([
      'a:9092',
      'b.example:9093',
    ]);
    for (const wrong of ['localhost', 'kafka://a:9092', 'a:9092,,b:1'])
      expect(() => readSettings({ KAFKA_BROKERS: wrong })).toThrow(/KAFKA_BROKERS must be/);
  });
});

test('keys have the form of the contract', () => {
  expect(generateKey('test').secret).toMatch(/^tm_test_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$/);
});

test('P12: a cost is rounded half up, once', () => {
  expect([costOf(0n, 0n), costOf(1n, 0n), costOf(12n, 0n), costOf(13n, 0n), costOf(1_000n, 1_000_000n)]).toEqual([
    '0.00',
    '0.00',
    '0.00',
    '0.01',
    '2.40',
  ]);
});

test('P12: an average is cut to significant digits half up', () => {
  expect([
    significant('0.3333333333333333', 4),
    significant('2.5000', 4),
    significant('19999.6', 5),
    significant('-0.00012345', 3),
  ]).toEqual(['0.3333', '2.5', '20000', '-0.000123']);
});

test('the sample is the same for the same seed', () => {
  expect(makeDay(7, 1e12).slice(0, 50)).toEqual(makeDay(7, 1e12).slice(0, 50));
  expect(makeDay(7, 1e12)[0]).not.toEqual(makeDay(8, 1e12)[0]);
});

describe('files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-files-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const write = (name: string, text: string | Buffer) => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const read = async (path: string, map = new Map<string, string>()): Promise<ReadLine[]> => {
    const lines: ReadLine[] = [];
    for await (const line of readLines(path, { format: await detectFormat(path), map, set: { customer_id: 'acme' } }))
      lines.push(line);
    return lines;
  };
  test('CSV by mapping, sums exact, digits kept', async () => {
    const path = write(
      'a.csv',
      'when,in,out,who,"quoted ""name"""\n2026-01-02 03:04:05.1239,9007199254740993,1,u,"a,b"\nnonsense,1,1,u,x\n',
    );
    const [first, second] = await read(
      path,
      new Map([
        ['timestamp', 'when'],
        ['tokens_consumed', 'in+out'],
        ['user_id', 'who'],
        ['note', 'quoted "name"'],
      ]),
    );
    expect(first).toEqual({
      number: 2,
      lines: [
        {
          customer_id: 'acme',
          timestamp: '2026-01-02T03:04:05.123Z',
          tokens_consumed: { literal: '9007199254740994' },
          user_id: 'u',
          note: 'a,b',
        },
      ],
    });
    expect(second).toMatchObject({ number: 3, problem: expect.stringContaining('nonsense') });
  });
  test('the LLM trace: a call and its tokens by direction', async () => {
    const [line] = await read(
      write('trace.csv', 'TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n'),
    );
    expect('lines' in (line ?? {}) && line !== undefined && 'lines' in line ? line.lines.map(toJson) : []).toEqual([
      '{"endpoint":"llm","customer_id":"acme","timestamp":"2023-11-16T18:15:46.680Z","type":"api_call"}',
      '{"customer_id":"acme","timestamp":"2023-11-16T18:15:46.680Z","type":"llm_tokens","endpoint":"context","tokens_consumed":374}',
      '{"customer_id":"acme","timestamp":"2023-11-16T18:15:46.680Z","type":"llm_tokens","endpoint":"generated","tokens_consumed":44}',
    ]);
  });
  test('a combined access log, gzipped, with a bad line', async () => {
    const path = write(
      'access.log.gz',
      gzipSync('1.2.3.4 - - [17/May/2015:10:05:03 +0200] "GET /a?b=1 HTTP/1.1" 404 12 "-" "curl \\"x\\""\nbroken\n'),
    );
    const [first, second] = await read(path);
    expect(first).toMatchObject({
      lines: [
        {
          timestamp: '2015-05-17T08:05:03.000Z',
          user_id: '1.2.3.4',
          endpoint: '/a',
          method: 'GET',
          status_code: { literal: '404' },
          bytes: { literal: '12' },
        },
      ],
    });
    expect(second).toMatchObject({ number: 2, problem: expect.any(String) });
  });
  test('CSV cells as RFC 4180 has them', () => {
    expect(parseCsvLine('a,"b,""c""",,d')).toEqual(['a', 'b,"c"', '', 'd']);
    expect(() => parseCsvLine('"a')).toThrow();
  });
});

describe('the import table', () => {
  test('is broken by a forbidden room, a private file and a cycle', () => {
    const graph = new Map([
      ['metering/a.ts', importsOf('metering/a.ts', "import { x } from '../sinks/index.ts';")],
      [
        'ingest/a.ts',
        importsOf('ingest/a.ts', "import type { x } from '../sinks/log/port.ts';\nimport { b } from './b.ts';"),
      ],
      ['ingest/b.ts', importsOf('ingest/b.ts', "export * from './a.ts';")],
    ]);
    expect(violations(graph)).toEqual([
      'metering/a.ts imports sinks/index.ts: metering may not import sinks',
      'ingest/a.ts imports sinks/log/port.ts: only sinks/index.ts is public',
      'import cycle: ingest/a.ts → ingest/b.ts → ingest/a.ts',
    ]);
  });
});
