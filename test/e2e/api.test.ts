import { gzipSync } from 'node:zlib';
import { OpenMeter } from '@openmeter/sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer } from '../support/server.ts';

const server = new TestServer();
/** A whole hour some hours ago, so that the day is folded up to there. */
const HOUR = Math.floor(Date.now() / 3_600_000) * 3_600_000 - 6 * 3_600_000;
interface Sent {
  at: number;
  tenant: string;
  user: string;
  endpoint: string;
  tokens: number;
  ms: number;
}
const sent: Sent[] = [];

beforeAll(async () => {
  await server.start({ PROCESSOR_LINGER_MS: '0', PROCESSOR_BATCH_EVENTS: '300' });
  for (let i = 0; i < 4_000; i++)
    sent.push({
      at: HOUR - 40 * 3_600_000 + ((i * 7_919) % 4_000) * 40_000 + (i % 977),
      tenant: `t${i % 3}`,
      user: `u${(i * 31) % 23}`,
      endpoint: `/e${i % 4}`,
      tokens: i % 1_000,
      ms: (i * 13) % 5_000,
    });
  for (let i = 0; i < sent.length; i += 500) {
    const lines = sent.slice(i, i + 500).map((one, j) =>
      JSON.stringify({
        timestamp: new Date(one.at).toISOString(),
        customer_id: one.tenant,
        request_id: `r${i + j}`,
        user_id: one.user,
        endpoint: one.endpoint,
        method: 'GET',
        status_code: 200,
        duration_ms: one.ms,
        tokens_consumed: one.tokens,
      }),
    );
    expect((await server.post([...lines, ...lines.slice(0, 20)])).status).toBe(204);
  }
  expect(await server.settled()).toMatchObject({ received: 4_160, accepted: 4_000, duplicate: 160 });
});
afterAll(() => server.dispose());

interface Answer {
  data: {
    value: number;
    windowStart: string;
    windowEnd: string;
    subject: string | null;
    groupBy: Record<string, string | null>;
    quantiles?: { p50: number; p95: number };
  }[];
}
/** Those of ascending `own` that a window holds. */
function between(own: readonly Sent[], { windowStart, windowEnd }: { windowStart: string; windowEnd: string }): Sent[] {
  const first = (at: number) => {
    let low = 0;
    let high = own.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((own[middle]?.at ?? 0) < at) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return own.slice(first(Date.parse(windowStart)), first(Date.parse(windowEnd)));
}

const query = (meter: string, parameters: string) => server.json<Answer>(`/api/v1/meters/${meter}/query?${parameters}`);

describe('P3: meter queries equal a recomputation from what was sent', () => {
  const iso = (ms: number) => new Date(ms).toISOString();
  const ranges: [string, string][] = [
    ['', ''],
    [`from=${iso(HOUR - 30 * 3_600_000)}&to=${iso(HOUR)}`, 'whole hours'],
    [`from=${iso(HOUR - 30 * 3_600_000 + 17 * 60_000)}&to=${iso(HOUR + 43 * 60_000)}`, 'minutes at both ends'],
  ];
  const zones = ['UTC', 'Asia/Kolkata', 'Asia/Kathmandu', 'America/New_York', 'Australia/Lord_Howe'];
  test.each(
    ranges.flatMap(([range]) =>
      ['MINUTE', 'HOUR', 'DAY', 'MONTH', ''].flatMap((size) => zones.map((zone) => [range, size, zone] as const)),
    ),
  )('range "%s", window %s, zone %s', async (range, size, zone) => {
    const parameters = new URLSearchParams(range);
    const from = parameters.has('from') ? Date.parse(parameters.get('from') ?? '') : Number.NEGATIVE_INFINITY;
    const to = parameters.has('to') ? Date.parse(parameters.get('to') ?? '') : Number.POSITIVE_INFINITY;
    const within = sent.filter((one) => one.at >= from && one.at < to);
    const byTenant = Map.groupBy(
      within.toSorted((a, b) => a.at - b.at),
      (one) => one.tenant,
    );
    const suffix = `${range}&windowTimeZone=${zone}${size === '' ? '' : `&windowSize=${size}`}`;
    for (const [meter, value] of [
      ['api_calls', (own: Sent[]) => own.length],
      ['tokens', (own: Sent[]) => own.reduce((sum, one) => sum + one.tokens, 0)],
      ['active_users', (own: Sent[]) => new Set(own.map((one) => one.user)).size],
    ] as const) {
      const { data } = await query(meter, `${suffix}&groupBy=subject`);
      expect(data.reduce((sum, row) => sum + (meter === 'active_users' ? 0 : row.value), 0)).toBe(
        meter === 'active_users' ? 0 : value(within),
      );
      const shown = data.map((row) => [row.subject, row.windowStart, row.value]);
      expect(shown).toEqual(
        data.map((row) => [row.subject, row.windowStart, value(between(byTenant.get(row.subject ?? '') ?? [], row))]),
      );
    }
  });

  test('percentiles are within 1 % of the exact ones, by group', async () => {
    const { data } = await query('request_duration', 'groupBy=endpoint&groupBy=subject&quantile=0.5');
    expect(data).toHaveLength(12);
    for (const row of data) {
      const own = sent
        .filter((one) => one.tenant === row.subject && one.endpoint === row.groupBy.endpoint)
        .map((one) => one.ms)
        .sort((a, b) => a - b);
      const exact = (q: number) => own[Math.floor(q * (own.length - 1))] ?? 0;
      for (const [got, q] of [
        [row.value, 0.5],
        [row.quantiles?.p50, 0.5],
        [row.quantiles?.p95, 0.95],
      ] as const)
        expect(Math.abs((got ?? 0) - exact(q))).toBeLessThanOrEqual(exact(q) * 0.0101);
    }
  });

  test('filters, several values, and empty windows', async () => {
    const { data } = await query(
      'api_calls',
      'groupBy=endpoint&filterGroupBy[endpoint]=/e1&filterGroupBy[endpoint]=/e2&subject=t1',
    );
    expect(data.map((row) => [row.groupBy.endpoint, row.value])).toEqual(
      ['/e1', '/e2'].map((endpoint) => [
        endpoint,
        sent.filter((one) => one.tenant === 't1' && one.endpoint === endpoint).length,
      ]),
    );
    const from = new Date(HOUR + 5 * 3_600_000).toISOString();
    const empty = await query(
      'api_calls',
      `from=${from}&to=${new Date(HOUR + 7 * 3_600_000).toISOString()}&windowSize=HOUR&empty=zero`,
    );
    expect(empty.data.map((row) => row.value)).toEqual([0, 0]);
  });

  test('P12: CSV and exact decimal strings', async () => {
    const csv = await (
      await server.request('/api/v1/meters/tokens/query?groupBy=subject', { headers: { accept: 'text/csv' } })
    ).text();
    expect(csv.split('\r\n')[0]).toBe('window_start,window_end,subject,value');
    expect(csv.trim().split('\r\n')).toHaveLength(4);
    const exact = (await (
      await server.request('/api/v1/meters/tokens/query', { headers: { accept: 'application/vnd.tidemark+json' } })
    ).json()) as { data: { value: string }[] };
    expect(exact.data[0]?.value).toBe(String(sent.reduce((sum, one) => sum + one.tokens, 0)));
  });
});

test('the published OpenMeter client ingests, lists, gets and queries', async () => {
  const client = new OpenMeter({ baseUrl: server.url, apiKey: ADMIN_KEY });
  await client.events.ingest({
    id: 'om-1',
    source: 'sdk',
    type: 'feature_use',
    subject: 'om',
    time: new Date(),
    data: { feature: 'sdk' },
  });
  await server.settled();
  expect((await client.meters.list())?.map((meter) => meter.slug)).toContain('tokens');
  expect((await client.meters.get('tokens'))?.aggregation).toBe('SUM');
  const result = await client.meters.query('feature_usage', {
    groupBy: ['feature'],
    filterGroupBy: { feature: 'sdk' },
  });
  expect(result?.data?.[0]).toMatchObject({ value: 1, groupBy: { feature: 'sdk' } });
  const events = await client.events.list({ subject: 'om' });
  expect(events?.[0]?.event).toMatchObject({ id: 'om-1', source: 'sdk', type: 'feature_use', subject: 'om' });
});

describe('raw events', () => {
  test('a request is found in the whole hot range, newest first, page by page', async () => {
    const found =
      await server.json<{ event: { id: string; subject: string; data: Record<string, unknown> } }[]>(
        '/api/v1/events?request_id=r7',
      );
    expect(found).toHaveLength(1);
    expect(found[0]?.event).toMatchObject({
      id: 'r7',
      subject: 't1',
      data: { request_id: 'r7', user_id: sent[7]?.user, tokens_consumed: 7, status_code: 200 },
    });
    const ids: string[] = [];
    let path: string | undefined =
      `/api/v1/events?subject=t1&limit=100&from=${new Date(HOUR - 41 * 3_600_000).toISOString()}&type=api_call`;
    let last = Number.POSITIVE_INFINITY;
    while (path !== undefined) {
      const answer = await server.request(path);
      for (const { event } of (await answer.json()) as { event: { id: string; time: string } }[]) {
        ids.push(event.id);
        expect(Date.parse(event.time)).toBeLessThanOrEqual(last);
        last = Date.parse(event.time);
      }
      path = /<([^>]+)>; rel="next"/.exec(answer.headers.get('link') ?? '')?.[1];
    }
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.length).toBe(sent.filter((one) => one.tenant === 't1').length);
  });
});

describe('P7: tenants', () => {
  test('a tenant created later keeps its usage; its key reads that alone', async () => {
    const created = await server.request('/api/v1/tenants', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ slug: 'tee-one', name: 'T1', customer_id: 't1' }),
    });
    expect(created.status).toBe(201);
    const { keys } = (await created.json()) as { keys: { secret: string }[] };
    const headers = { authorization: `Bearer ${keys[0]?.secret}` };
    const own = (await (
      await server.request('/api/v1/meters/api_calls/query?groupBy=subject', { headers })
    ).json()) as Answer;
    expect(own.data.map((row) => row.subject)).toEqual(['t1']);
    for (const path of ['/api/v1/meters/api_calls/query?subject=t2', '/api/v1/events?subject=t2', '/api/v1/tenants/t2'])
      expect([path, (await server.request(path, { headers })).status]).toEqual([path, 404]);
    expect((await server.request('/api/v1/keys', { headers })).status).toBe(403);
    expect((await server.request('/metrics', { headers })).status).toBe(403);
    const mine = (await (await server.request('/api/v1/reconciliation', { headers })).json()) as {
      tenants: { tenant: string }[];
    };
    expect(mine.tenants.map((row) => row.tenant)).toEqual(['t1']);
    const again = await server.request('/api/v1/tenants', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ slug: 'tee-one', name: 'T1', customer_id: 'other' }),
    });
    expect(again.status).toBe(409);
  });
  test('no key, a wrong key', async () => {
    for (const authorization of ['', 'Bearer x', 'Basic abc', `Bearer ${ADMIN_KEY}x`])
      expect((await server.request('/api/v1/meters', { headers: { authorization } })).status).toBe(401);
  });
});

describe('P6: bad input is answered with its catalogue error, never a 5xx', () => {
  const line = JSON.stringify({ timestamp: new Date().toISOString(), customer_id: 'bad', request_id: 'b1' });
  const json = { 'content-type': 'application/json' };
  const cases: [string, string, RequestInit, number, string][] = [
    ['not JSON', '/api/v1/logs', { method: 'POST', headers: json, body: 'nonsense' }, 400, 'invalid_json'],
    [
      'wrong content type',
      '/api/v1/logs',
      { method: 'POST', headers: { 'content-type': 'text/plain' }, body: line },
      415,
      'unsupported_media_type',
    ],
    [
      'wrong encoding',
      '/api/v1/logs',
      { method: 'POST', headers: { ...json, 'content-encoding': 'br' }, body: line },
      415,
      'unsupported_encoding',
    ],
    [
      'no gzip at all',
      '/api/v1/logs',
      { method: 'POST', headers: { ...json, 'content-encoding': 'gzip' }, body: line },
      400,
      'invalid_body',
    ],
    [
      '6 MB',
      '/api/v1/logs',
      { method: 'POST', headers: json, body: `"${'x'.repeat(6 << 20)}"` },
      413,
      'body_too_large',
    ],
    [
      'a gzip bomb',
      '/api/v1/logs',
      { method: 'POST', headers: { ...json, 'content-encoding': 'gzip' }, body: gzipSync(Buffer.alloc(60 << 20, 32)) },
      413,
      'body_too_large',
    ],
    ['all rejected', '/api/v1/logs', { method: 'POST', headers: json, body: '[{},{}]' }, 400, 'all_rejected'],
    [
      'strict',
      '/api/v1/logs',
      { method: 'POST', headers: { ...json, prefer: 'handling=strict' }, body: `[${line},{}]` },
      400,
      'all_rejected',
    ],
    ['an unknown meter', '/api/v1/meters/nope/query', {}, 404, 'unknown_meter'],
    ['an unknown group', '/api/v1/meters/tokens/query?groupBy=nope', {}, 400, 'unknown_group'],
    ['a quantile of a sum', '/api/v1/meters/tokens/query?quantile=0.5', {}, 400, 'quantile_without_sketch'],
    ['a zone that is none', '/api/v1/meters/tokens/query?windowTimeZone=Mars/Base', {}, 400, 'invalid_parameter'],
    ['a window that is none', '/api/v1/meters/tokens/query?windowSize=WEEK', {}, 400, 'invalid_parameter'],
    [
      'from after to',
      '/api/v1/meters/tokens/query?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z',
      {},
      400,
      'invalid_range',
    ],
    [
      'half a minute',
      '/api/v1/meters/tokens/query?from=2026-01-02T00:00:30Z&to=2026-01-03T00:00:00Z',
      {},
      400,
      'invalid_range',
    ],
    [
      'too many windows',
      '/api/v1/meters/tokens/query?from=1990-01-02T00:00:00Z&to=2026-01-03T00:00:00Z&windowSize=MINUTE',
      {},
      400,
      'invalid_range',
    ],
    ['a bad cursor', '/api/v1/events?cursor=abc', {}, 400, 'invalid_cursor'],
    ['a bad limit', '/api/v1/events?limit=-1', {}, 400, 'invalid_parameter'],
    ['NUL in a search', '/api/v1/events?request_id=%00', {}, 400, 'invalid_parameter'],
    ['NUL in a subject', '/api/v1/events?subject=%00', {}, 400, 'invalid_parameter'],
    ['an unknown subject', '/api/v1/events?subject=nobody%27', {}, 404, 'not_found'],
    ['no such route', '/api/v1/nope', {}, 404, 'not_found'],
    ['a path that is no UTF-8', '/api/v1/nope/%ff', {}, 400, 'invalid_parameter'],
    ['NUL in a filter', '/api/v1/meters/tokens/query?filterGroupBy[endpoint]=%00', {}, 400, 'invalid_parameter'],
    ['no such dead letter', '/api/v1/dead-letters/1%27/requeue', { method: 'POST' }, 404, 'not_found'],
    [
      'a tenant without a slug',
      '/api/v1/tenants',
      { method: 'POST', headers: json, body: '{"name":"x"}' },
      400,
      'invalid_body',
    ],
    [
      'a tenant in broken JSON',
      '/api/v1/tenants',
      { method: 'POST', headers: json, body: '{"name":' },
      400,
      'invalid_body',
    ],
    [
      'a slug with a quote',
      '/api/v1/tenants',
      { method: 'POST', headers: json, body: '{"name":"x","slug":"a\'b"}' },
      400,
      'invalid_body',
    ],
  ];
  test.each(cases)('%s', async (_what, path, init, status, code) => {
    const answer = await server.request(path, init);
    const body = (await answer.json()) as { code: string; request_id: string };
    expect([answer.status, body.code]).toEqual([status, code]);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(body.request_id).toBe(answer.headers.get('x-request-id'));
  });

  test('some rejected: 200 with index, code and field; the rest counts; gzip and empty bodies are fine', async () => {
    const answer = await server.request('/api/v1/logs', {
      method: 'POST',
      headers: { ...json, 'content-encoding': 'gzip' },
      body: gzipSync(`[${line},{"customer_id":"bad","request_id":"b2"}]`),
    });
    expect([answer.status, await answer.json()]).toMatchObject([
      200,
      { accepted: 1, rejected: [{ index: 1, code: 'missing_field', field: 'timestamp' }] },
    ]);
    for (const body of ['', '[]', '  '])
      expect((await server.request('/api/v1/logs', { method: 'POST', headers: json, body })).status).toBe(204);
  });

  test('a body that is too large is read to its end: its sender sees 413, not a broken connection', async () => {
    for (const megabytes of [6, 20, 6, 40, 6]) {
      const answer = await server.request('/api/v1/logs', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: ' '.repeat(megabytes << 20),
      });
      expect([megabytes, answer.status]).toEqual([megabytes, 413]);
    }
  });

  test('backfill needs the scope admin, and lifts the window', async () => {
    const old = JSON.stringify({
      timestamp: '2015-05-17T10:00:00Z',
      customer_id: 'old',
      request_id: 'o1',
      tokens_consumed: 5,
    });
    const refused = (await (await server.post([old])).json()) as { rejected: { code: string }[] };
    expect(refused.rejected[0]?.code).toBe('too_old');
    expect((await server.post([old], { 'tidemark-backfill': 'true' })).status).toBe(204);
    await server.settled();
    const { data } = await query('tokens', 'subject=old');
    expect(data[0]).toMatchObject({ value: 5, windowStart: '2015-05-17T10:00:00.000Z' });
  });
});

test('the documentation describes every route', async () => {
  const { paths } = (await (await fetch(`${server.url}/openapi.json`)).json()) as { paths: Record<string, unknown> };
  for (const path of [
    '/api/v1/events',
    '/api/v1/logs',
    '/api/v1/meters/{slug}/query',
    '/api/v1/reconciliation',
    '/api/v1/dead-letters',
    '/api/v1/tenants',
    '/api/v1/keys',
  ])
    expect(Object.keys(paths)).toContain(path);
  expect((await fetch(`${server.url}/docs/`)).status).toBe(200);
  const metrics = await (await server.request('/metrics')).text();
  expect(metrics).toMatch(/tidemark_processed_events_total\{outcome="accepted"\} [1-9]/);
});
