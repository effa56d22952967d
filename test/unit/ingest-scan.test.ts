import { describe, expect, test } from 'vitest';
import { type BodyForm, RateLimits, type ScanContext, scanBody } from '../../ingest/index.ts';
import { decodeEvent, type Tenant } from '../../schemas/index.ts';

const NOW = Date.parse('2026-01-26T21:31:00Z');
const tenant = (customerId: string): Tenant => ({
  id: '00000000-0000-4000-8000-000000000001',
  customerId,
  slug: null,
  name: customerId,
  email: null,
  tier: 'discovered',
  status: 'ready',
  createdAt: new Date(0),
});
const context = (form: BodyForm, more: Partial<ScanContext> = {}): ScanContext => ({
  form,
  principal: { keyId: 'k', tenant: null, scopes: new Set(['ingest']) },
  settings: {
    maxAgeMs: 35 * 86_400_000,
    maxAheadMs: 300_000,
    unknownTenants: 'create',
    rates: { free: { perSecond: 100, burst: 2 }, standard: null, enterprise: null, discovered: null },
    appendDeadlineMs: 1000,
    lagLimit: 1000,
    spread: new Map(),
  },
  partitions: 4,
  limits: new RateLimits({ free: { perSecond: 100, burst: 2 }, standard: null, enterprise: null, discovered: null }),
  now: NOW,
  backfill: false,
  tenant,
  placed: () => null,
  ...more,
});

const SEED =
  '{"timestamp":"2026-01-26T21:30:45.123Z","level":"info","customer_id":"tenant_abc123","request_id":"req_xyz789","user_id":"user_456","endpoint":"/api/v1/agents","method":"POST","status_code":201,"duration_ms":145,"tokens_consumed":2500,"message":"Agent created successfully"}';

function scan(body: string | Buffer, form: BodyForm = 'log', more: Partial<ScanContext> = {}) {
  const { rejected, batches, accepted } = scanBody(Buffer.from(body), context(form, more));
  const events = batches.flatMap((batch) =>
    Array.from({ length: batch.count }, (_, i) =>
      decodeEvent(batch.bytes, i === 0 ? 0 : batch.ends[i - 1], batch.ends[i]),
    ),
  );
  return { rejected, events, accepted };
}
/** The seed line with some members in front of it. */
const withMembers = (members: string) => `{${members},${SEED.slice(1)}`;

describe('a log line', () => {
  test('P1: the seed line is accepted as it is, nothing of it is lost', () => {
    const { events, rejected } = scan(SEED);
    expect(rejected).toEqual([]);
    expect(events[0]).toMatchObject({
      tenant: 'tenant_abc123',
      idempotency_key: 'req_xyz789',
      type: 'api_call',
      timestamp: Date.parse('2026-01-26T21:30:45.123Z'),
      user_id: 'user_456',
      request_id: 'req_xyz789',
      keyed_by_source: false,
    });
    expect([...(events[0]?.attributes.keys() ?? [])]).toEqual([
      'level',
      'endpoint',
      'method',
      'status_code',
      'duration_ms',
      'tokens_consumed',
      'message',
    ]);
  });

  test('P12: numbers keep their source text, however long', () => {
    const { events } = scan(
      withMembers('"a":12345678901234567890.123456789012345678,"b":1.50,"c":2.5e-3,"d":-0,"e":1E3'),
    );
    const value = (name: string) => events[0]?.attributes.get(name)?.value;
    expect([value('a'), value('b'), value('c'), value('d'), value('e')]).toEqual([
      '12345678901234567890.123456789012345678',
      '1.50',
      '0.0025',
      0,
      '1000',
    ]);
  });

  test('nested members become dotted names and stay JSON', () => {
    const { events } = scan(withMembers('"usage":{"input":{"tokens":5},"list":[1,{"x":2}]},"gone":null'));
    expect(events[0]?.attributes.get('usage.input.tokens')).toEqual({ kind: 'long', value: 5 });
    expect(JSON.parse(events[0]?.data ?? '')).toEqual({
      usage: { input: { tokens: 5 }, list: [1, { x: 2 }] },
      gone: null,
    });
  });

  test('the last of two members of one name wins', () => {
    const { events } = scan(withMembers('"x":{"y":1},"x":2,"z":1,"z":{"q":3}'));
    expect(events[0]?.attributes.get('x')).toEqual({ kind: 'long', value: 2 });
    expect(events[0]?.attributes.has('x.y')).toBe(false);
    expect(events[0]?.attributes.has('z')).toBe(false);
    expect(JSON.parse(events[0]?.data ?? '')).toEqual({ z: { q: 3 } });
    // However they are written.
    for (const two of ['"x":1,"\\u0078":null', '"\\u0078":1,"x":null', '"\\u0078":1,"\\u0078":null'])
      expect(scan(withMembers(two)).events[0]?.attributes.has('x')).toBe(false);
  });

  test('escapes are decoded', () => {
    const { events } = scan(SEED.replace('user_456', 'u\\u00e9\\n'.replace('\\n', '\\"')));
    expect(events[0]?.user_id).toBe('ué"');
  });

  test('a time with an offset is converted to UTC', () => {
    const { events } = scan(SEED.replace('21:30:45.123Z', '23:30:45.123+02:00'));
    expect(events[0]?.timestamp).toBe(Date.parse('2026-01-26T21:30:45.123Z'));
  });
});

describe('P6: one bad event is rejected alone, with its code, field and index', () => {
  const cases: [what: string, body: string, code: string, field: string | undefined][] = [
    ['no idempotency key', SEED.replace('"request_id":"req_xyz789",', ''), 'missing_field', 'idempotency_key'],
    ['no time', SEED.replace('"timestamp":"2026-01-26T21:30:45.123Z",', ''), 'missing_field', 'timestamp'],
    ['a time without a zone', SEED.replace('.123Z', ''), 'invalid_timestamp', 'timestamp'],
    ['a day that does not exist', SEED.replace('2026-01-26', '2026-02-30'), 'invalid_timestamp', 'timestamp'],
    ['the year 3000', SEED.replace('2026-01', '3000-01'), 'too_new', 'timestamp'],
    ['the year 2020', SEED.replace('2026-01', '2020-01'), 'too_old', 'timestamp'],
    ['NaN', withMembers('"v":NaN'), 'invalid_json', 'v'],
    ['10^40', withMembers('"v":1e40'), 'number_out_of_range', 'v'],
    ['19 decimals', withMembers('"v":0.1234567890123456789'), 'number_out_of_range', 'v'],
    ['17 levels', withMembers(`"d":${'['.repeat(17)}${']'.repeat(17)}`), 'too_deep', 'd'],
    ['17 levels of objects', withMembers(`"d":${'{"a":'.repeat(17)}1${'}'.repeat(17)}`), 'too_deep', undefined],
    ['__proto__', withMembers('"__proto__":{"x":1}'), 'forbidden_key', '__proto__'],
    ['an escaped, nested constructor', withMembers('"a":{"\\u0063onstructor":1}'), 'forbidden_key', 'constructor'],
    ['prototype in an array', withMembers('"a":[{"prototype":1}]'), 'forbidden_key', 'prototype'],
    ['NUL in a string', withMembers('"s":"a\\u0000b"'), 'invalid_character', 's'],
    ['NUL in a nested string', withMembers('"s":[{"x":"\\u0000"}]'), 'invalid_character', 's'],
    ['a lone surrogate', withMembers('"s":"\\ud800"'), 'invalid_character', 's'],
    ['a control character in an identifier', SEED.replace('user_456', 'a\\tb'), 'invalid_character', 'user_id'],
    ['a number as user_id', SEED.replace('"user_456"', '5'), 'invalid_field', 'user_id'],
    ['a key of 513 bytes', withMembers(`"idempotency_key":"${'k'.repeat(513)}"`), 'field_too_long', 'idempotency_key'],
    ['an empty customer_id', SEED.replace('tenant_abc123', ''), 'invalid_field', 'customer_id'],
    ['no customer_id', SEED.replace('"customer_id":"tenant_abc123",', ''), 'missing_field', 'customer_id'],
    ['65 KB', withMembers(`"s":"${'x'.repeat(65 * 1024)}"`), 'event_too_large', undefined],
    ['a number instead of an event', '5', 'invalid_event', undefined],
    ['an array instead of an event', '[1,[2]]', 'invalid_event', undefined],
  ];
  test.each(cases)('%s', (_what, body, code, field) => {
    const good = SEED.replace('req_xyz789', 'good');
    const { rejected, events } = scan(`[${good},${body},${good}]`);
    expect(events.map((event) => event?.idempotency_key)).toEqual(['good', 'good']);
    expect(rejected).toHaveLength(1);
    expect(rejected[0]).toMatchObject({ index: 1, code, ...(field === undefined ? {} : { field }) });
  });

  test('invalid UTF-8 costs its event only', () => {
    const bad = Buffer.from(SEED.replace('user_456', 'user_XYZ'));
    bad[bad.indexOf('XYZ')] = 0xff;
    const { rejected, accepted } = scan(Buffer.concat([Buffer.from(`[${SEED},`), bad, Buffer.from(']')]));
    expect([accepted, rejected.map(({ index, code }) => [index, code])]).toEqual([1, [[1, 'invalid_character']]]);
  });

  test('a malformed NDJSON line is rejected alone and empty lines are nothing', () => {
    const { rejected, accepted } = scan(`${SEED}\n\n{"a":\r\n  \n${SEED} x\n${SEED}\n`, 'ndjson');
    expect([accepted, rejected.map(({ index, code }) => [index, code])]).toEqual([
      2,
      [
        [1, 'invalid_json'],
        [2, 'invalid_json'],
      ],
    ]);
  });

  test.each(['{', '[1', `[${SEED}`, `[${SEED},]`, `${SEED}x`, '"', '{"a" 1}', '{"a":tru}', '{"a":01}', '{"a":"\\x"}'])(
    'what can not be read on is invalid_json as a whole: %s',
    (body) => {
      expect(() => scan(body)).toThrow(expect.objectContaining({ code: 'invalid_json' }));
    },
  );

  test('more than 10,000 events are too many', () => {
    expect(() => scan(`[${Array.from({ length: 10_001 }, () => '1').join(',')}]`)).toThrow(
      expect.objectContaining({ code: 'body_too_large' }),
    );
  });
});

describe('CloudEvents', () => {
  const event = (more: object) =>
    JSON.stringify({
      specversion: '1.0',
      id: 'a',
      source: 's',
      type: 't',
      subject: 'acme',
      time: '2026-01-26T21:30:45Z',
      data: { tokens: 5 },
      ...more,
    });

  test('the pair of source and id is the key', () => {
    expect(scan(event({}), 'cloudevents').events[0]).toMatchObject({
      tenant: 'acme',
      idempotency_key: 'a',
      source: 's',
      keyed_by_source: true,
      type: 't',
    });
  });
  test('customer_id in data goes before the subject, which is kept', () => {
    const [found] = scan(event({ data: { customer_id: 'globex', user_id: 'u' } }), 'cloudevents').events;
    expect(found).toMatchObject({ tenant: 'globex', user_id: 'u' });
    expect(found?.attributes.get('subject')).toEqual({ kind: 'string', value: 'acme' });
  });
  test('extensions are kept, a missing time is the time of receipt', () => {
    const [found] = scan(event({ time: undefined, traceparent: '00-1' }), 'cloudevents').events;
    expect(found?.timestamp).toBe(NOW);
    expect(JSON.parse(found?.data ?? '')).toEqual({ cloudevents: { traceparent: '00-1' } });
  });
  test.each([
    [{ specversion: '0.3' }, 'specversion'],
    [{ data: 'text' }, 'data'],
    [{ data_base64: 'AA==' }, 'data_base64'],
    [{ datacontenttype: 'text/xml' }, 'datacontenttype'],
  ])('P6: %j is refused naming %s', (more, field) => {
    expect(scan(event(more), 'cloudevents').rejected[0]).toMatchObject({ code: 'invalid_field', field });
  });
  test.each(['id', 'source', 'type', 'specversion', 'subject'])('P6: %s is required', (field) => {
    expect(scan(event({ [field]: undefined }), 'cloudevents').rejected[0]).toMatchObject({
      code: 'missing_field',
      field,
    });
  });
});

describe('tenants', () => {
  test("P7: a tenant's key sends its own events only", () => {
    const own = { principal: { keyId: 'k', tenant: tenant('acme'), scopes: new Set(['ingest'] as const) } };
    const { rejected, events } = scan(
      `[${SEED},${SEED.replace('tenant_abc123', 'acme')},${SEED.replace('"customer_id":"tenant_abc123",', '')}]`,
      'log',
      own,
    );
    expect(rejected).toMatchObject([{ index: 0, code: 'wrong_tenant', field: 'customer_id' }]);
    expect(events.map((event) => event?.tenant)).toEqual(['acme', 'acme']);
  });
  test('an event beyond the rate is rejected, its neighbours of other tenants are not', () => {
    const tiers = {
      tenant: (name: string) => ({
        ...tenant(name),
        id: name,
        tier: name === 'slow' ? ('free' as const) : ('discovered' as const),
      }),
    };
    const slow = SEED.replace('tenant_abc123', 'slow');
    const { rejected, accepted } = scan(`[${slow},${slow},${slow},${SEED}]`, 'log', tiers);
    expect([accepted, rejected.map(({ index, code }) => [index, code])]).toEqual([3, [[2, 'rate_limited']]]);
  });
  test('unknown tenants are asked for, once each', () => {
    const { unknown } = scanBody(Buffer.from(`[${SEED},${SEED}]`), context('log', { tenant: () => undefined }));
    expect([...unknown]).toEqual(['tenant_abc123']);
  });
});
