import { OpenMeter } from '@openmeter/sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';

const server = new TestServer();
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** The start of the day before yesterday: the day after it is past as well, whatever the time is. */
const START = Math.floor(Date.now() / DAY) * DAY - 2 * DAY;
const iso = (ms: number) => new Date(ms).toISOString();
const TENANTS = 7;

const cloudEvent = (id: number, at: number, more: { type?: string; subject?: string; data: object }) => ({
  specversion: '1.0',
  id: `c${id}`,
  source: 'svc',
  type: 'api_call',
  subject: `s${id % TENANTS}`,
  time: iso(at),
  ...more,
});

async function send(events: object[]): Promise<void> {
  const answer = await server.request('/api/v1/events', {
    method: 'POST',
    headers: { 'content-type': 'application/cloudevents-batch+json' },
    body: JSON.stringify(events),
  });
  expect(answer.status).toBe(204);
}

beforeAll(async () => {
  await server.start({ PROCESSOR_LINGER_MS: '0', ROLLUP_REFOLD_SECONDS: '0' });
  const events = [];
  for (let i = 0; i < 2_000; i++)
    events.push(
      cloudEvent(i, START + ((i * 7_919) % 2_000) * 40_000, {
        data: {
          endpoint: `/e${i % 5}`,
          method: i % 2 === 0 ? 'GET' : 'POST',
          status_code: i % 50 === 0 ? 500 : 200,
          duration_ms: (i % 400) + 1,
          tokens_consumed: i,
          model: `m${i % 3}`,
          user_id: `u${i % 11}`,
          request_id: `q${i % 500}`,
        },
      }),
    );
  events.push(
    cloudEvent(5_000, START + HOUR, {
      type: 'agent_invocation',
      data: { agent_type: 'writer', status: 'ok', duration_ms: 900, request_id: 'q1' },
    }),
    cloudEvent(5_001, START + HOUR, { type: 'tool_use', data: { tool: 'search', status: 'ok' } }),
    cloudEvent(5_002, START + HOUR, { type: 'feature_use', data: { feature: 'export' } }),
  );
  await send(events);
  await server.settled();
});
afterAll(() => server.dispose());

interface Row {
  value: number | string;
  windowStart: string;
  subject: string | null;
  groupBy: Record<string, string | null>;
}
interface Answer {
  data: Row[];
  next?: string | null;
  explain?: { rollups: { rollup: string }[] };
}
const query = (meter: string, parameters: string) => server.json<Answer>(`/api/v1/meters/${meter}/query?${parameters}`);
const RANGE = `from=${iso(START)}&to=${iso(START + DAY)}`;

describe('P3: many tenants', () => {
  test.each([
    ['tokens', ''],
    ['tokens', '&orderBy=value'],
    ['request_duration', '&orderBy=value&order=asc'],
  ])('pages put together are the whole answer, each row once: %s %s', async (meter, order) => {
    const parameters = `${RANGE}&windowSize=HOUR&groupBy=subject&groupBy=endpoint${order}`;
    const whole = await query(meter, parameters);
    expect(whole.data.length).toBeGreaterThan(500);
    const paged: Row[] = [];
    let path: string | undefined = `/api/v1/meters/${meter}/query?${parameters}&limit=97`;
    while (path !== undefined) {
      const answer = await server.request(path);
      const body = (await answer.json()) as Answer;
      paged.push(...body.data);
      path = /<([^>]+)>; rel="next"/.exec(answer.headers.get('link') ?? '')?.[1];
      expect(path === undefined).toBe(body.next === null);
    }
    expect(paged).toEqual(whole.data);
  });

  test('P6: a cursor of another order, or made up, is refused', async () => {
    const cursor = (parts: unknown) => Buffer.from(JSON.stringify(parts)).toString('base64url');
    const now = Date.now();
    for (const parts of [
      [now, '["a"]'],
      [now, '["a"]', '1e5'],
      [now, '["a\\u0000"]', '1'],
      [now, '["\\ud800"]', '1'],
      [now, '["a"]', '1; DROP TABLE events'],
      [now, '["a"]', '9'.repeat(2_000)],
    ]) {
      const path = `/api/v1/meters/tokens/query?${RANGE}&groupBy=subject&orderBy=value&limit=2&cursor=${cursor(parts)}`;
      const answer = await server.request(path);
      expect([parts, answer.status, ((await answer.json()) as { code: string }).code]).toEqual([
        parts,
        400,
        'invalid_cursor',
      ]);
    }
    for (const value of ['-7', '0.5', '9'.repeat(1_000)]) {
      const path = `/api/v1/meters/tokens/query?${RANGE}&groupBy=subject&orderBy=value&limit=2&cursor=${cursor([0, '[null]', value])}`;
      expect((await server.request(path)).status).toBe(200);
    }
  });

  test('the highest, the lowest, and the highest groups by window', async () => {
    const all = await query('tokens', `${RANGE}&groupBy=subject`);
    const order = (a: Row, b: Row) => Number(b.value) - Number(a.value);
    const top = await query('tokens', `${RANGE}&groupBy=subject&orderBy=value&limit=3`);
    expect(top.data).toEqual(all.data.toSorted(order).slice(0, 3));
    const low = await query('tokens', `${RANGE}&groupBy=subject&orderBy=value&order=asc&limit=2`);
    expect(low.data).toEqual(all.data.toSorted(order).toReversed().slice(0, 2));
    const byHour = await query('tokens', `${RANGE}&groupBy=subject&top=2&windowSize=HOUR`);
    const wanted = new Set(top.data.slice(0, 2).map((row) => row.subject));
    const every = await query('tokens', `${RANGE}&groupBy=subject&windowSize=HOUR`);
    expect(byHour.data).toEqual(every.data.filter((row) => wanted.has(row.subject)));
    const slow = await query('request_duration', `${RANGE}&groupBy=endpoint&top=1&windowSize=HOUR&empty=zero`);
    expect(new Set(slow.data.map((row) => row.groupBy.endpoint)).size).toBe(1);
    expect(slow.data).toHaveLength(24);
  });

  test('CSV and NDJSON have the rows of the JSON', async () => {
    const parameters = `${RANGE}&windowSize=HOUR&groupBy=subject&groupBy=endpoint`;
    const path = `/api/v1/meters/tokens/query?${parameters}`;
    const { data } = await query('tokens', parameters);
    const csv = await (await server.request(path, { headers: { accept: 'text/csv' } })).text();
    const lines = csv.trimEnd().split('\r\n');
    expect(lines[0]).toBe('window_start,window_end,subject,endpoint,value');
    expect(lines.slice(1).map((line) => line.split(',')[4])).toEqual(data.map((row) => String(row.value)));
    const ndjson = await server.request(path, { headers: { accept: 'application/x-ndjson' } });
    expect(ndjson.headers.get('content-type')).toBe('application/x-ndjson');
    const rows = (await ndjson.text()).trimEnd().split('\n');
    expect(rows.map((line) => (JSON.parse(line) as Row).value)).toEqual(data.map((row) => String(row.value)));
    const empty = `/api/v1/meters/tokens/query?from=${iso(START - 9 * DAY)}&to=${iso(START - 8 * DAY)}`;
    expect(await (await server.request(empty, { headers: { accept: 'application/x-ndjson' } })).text()).toBe('');
    expect(await (await server.request(empty, { headers: { accept: 'text/csv' } })).text()).toBe(
      'window_start,window_end,value\r\n',
    );
  });

  test('explain names the rollups; a late event does not make an answer wrong while its day is stale', async () => {
    // The next day begins, so that the hours and the day before it are folded.
    const next = Array.from({ length: TENANTS }, (_, i) =>
      cloudEvent(5_999 + i, START + DAY + 1.5 * HOUR, { subject: `s${i}`, data: { endpoint: '/e0' } }),
    );
    await send(next);
    const rollups = async () =>
      (await query('tokens', `${RANGE}&explain=true`)).explain?.rollups.map((one) => one.rollup) ?? [];
    await until(async () =>
      (await rollups()).includes('days of all tenants, partitions added up') ? true : undefined,
    );
    const before = await query('tokens', RANGE);
    await send([cloudEvent(6_100, START + 5 * HOUR, { data: { endpoint: '/e0', tokens_consumed: 1_000_000 } })]);
    const after = await until(async () => {
      const now = await query('tokens', RANGE);
      return now.data[0]?.value === before.data[0]?.value ? undefined : now;
    });
    expect(Number(after.data[0]?.value)).toBe(Number(before.data[0]?.value) + 1_000_000);
    // And a withdrawn one is in no total any more.
    const withdrawn = await server.request('/api/v1/events/c6100?source=svc&subject=s3', { method: 'DELETE' });
    expect([withdrawn.status, await withdrawn.text()]).toEqual([202, expect.anything()]);
    await until(async () =>
      (await query('tokens', RANGE)).data[0]?.value === before.data[0]?.value ? true : undefined,
    );
    expect(
      (await query('tokens', `${RANGE}&groupBy=subject`)).data.reduce((sum, row) => sum + Number(row.value), 0),
    ).toBe(before.data[0]?.value);
  });
});

test("OpenMeter's published client queries by GET and POST, lists values and subjects, and keeps subjects", async () => {
  const client = new OpenMeter({ baseUrl: server.url, apiKey: ADMIN_KEY });
  const asked = { from: new Date(START), to: new Date(START + DAY), windowSize: 'DAY' as const, groupBy: ['subject'] };
  const result = await client.meters.query('api_calls', asked);
  expect(result.from).toEqual(new Date(START));
  expect(result.windowSize).toBe('DAY');
  expect(result.data).toHaveLength(TENANTS);
  expect(result.data[0]).toMatchObject({
    windowStart: new Date(START),
    windowEnd: new Date(START + DAY),
    subject: 's0',
  });
  const posted = await client.meters.queryPost('api_calls', {
    ...asked,
    subject: ['s1', 's2'],
    filterGroupBy: { endpoint: ['/e1', '/e2'] },
  });
  const filtered = await query(
    'api_calls',
    `${RANGE}&subject=s1&subject=s2&filterGroupBy[endpoint]=/e1&filterGroupBy[endpoint]=/e2&windowSize=DAY`,
  );
  const rowsOf = (answer: typeof posted) => (typeof answer === 'object' ? answer.data : []);
  expect(JSON.parse(JSON.stringify(rowsOf(posted)))).toEqual(filtered.data);
  const advanced = await client.meters.queryPost('api_calls', {
    ...asked,
    subject: ['s1', 's2'],
    advancedMeterGroupByFilters: { endpoint: { $in: ['/e1', '/e2'] } },
  });
  expect(rowsOf(advanced)).toEqual(rowsOf(posted));
  const endpoints = await client.meters.listGroupByValues('api_calls', 'endpoint', { from: new Date(START) });
  expect(endpoints).toEqual(['/e0', '/e1', '/e2', '/e3', '/e4']);
  expect(await server.json('/api/v1/meters/api_calls/subjects')).toEqual(
    Array.from({ length: TENANTS }, (_, i) => `s${i}`),
  );
  await expect(client.meters.query('api_calls', { groupBy: ['nope'] })).rejects.toMatchObject({
    status: 400,
    type: 'urn:tidemark:error:unknown_group',
  });

  const made = await client.subjects.upsert({ key: 'new', displayName: 'New one', metadata: { plan: 'pro' } });
  expect(made?.[0]).toMatchObject({ key: 'new', displayName: 'New one', metadata: { plan: 'pro' } });
  expect(made?.[0]?.createdAt).toBeInstanceOf(Date);
  await client.subjects.upsert([
    { key: 'new', metadata: { plan: 'max' } },
    { key: 's0', displayName: 'Zero' },
  ]);
  expect(await client.subjects.get('new')).toMatchObject({ displayName: 'New one', metadata: { plan: 'max' } });
  expect(await client.subjects.get(made?.[0]?.id ?? '')).toMatchObject({ key: 'new' });
  expect((await client.subjects.list())?.map((subject) => subject.key)).toContain('new');
  expect(await client.subjects.delete('new')).toBeUndefined();
  expect((await client.subjects.list())?.map((subject) => subject.key)).not.toContain('new');
  await expect(client.subjects.get('new')).rejects.toMatchObject({ status: 404 });
  // Usage stays what it was.
  await client.subjects.delete('s0');
  expect((await client.meters.query('api_calls', { subject: ['s0'] })).data[0]?.value).toBeGreaterThan(0);
  await client.subjects.upsert({ key: 's0' });
  expect(await client.subjects.get('s0')).toMatchObject({ displayName: 'Zero' });
});

describe('pages and traces', () => {
  test('usage: totals, series and lists agree with each other and with what was sent', async () => {
    const page = await server.json<{
      totals: Record<string, string>;
      series: Record<string, string>[];
      by_endpoint: { api_calls: string }[];
      by_model: { model: string; tokens: string }[];
      by_tool: unknown[];
      active_users: { daily: { users: string }[]; monthly: { users: string }[] };
      top_tenants: { api_calls: { tenant: string }[] };
    }>(`/api/v1/usage?${RANGE}&windowSize=HOUR`);
    expect(page.totals).toMatchObject({
      agent_invocations: '1',
      tool_calls: '1',
      feature_usage: '1',
      active_users: '11',
    });
    const sum = (values: (string | undefined)[]) => values.reduce((all, value) => all + Number(value ?? 0), 0);
    expect(sum(page.series.map((entry) => entry.api_calls))).toBe(Number(page.totals.api_calls));
    expect(sum(page.by_endpoint.map((entry) => entry.api_calls))).toBe(Number(page.totals.api_calls));
    expect(sum(page.by_model.map((entry) => entry.tokens))).toBe(Number(page.totals.tokens));
    expect(page.by_tool).toEqual([{ tool: 'search', status: 'ok', tool_calls: '1' }]);
    expect(page.active_users.daily.map((entry) => entry.users)).toEqual(['11']);
    expect(page.top_tenants.api_calls).toHaveLength(TENANTS);
  });

  test('performance: percentiles and error rates by endpoint', async () => {
    const page = await server.json<{
      totals: { requests: string; errors: string; error_rate: string; duration_ms: { p95: number } };
      by_endpoint: { endpoint: string; requests: string; p95: number; error_rate: string }[];
      by_agent_type: { agent_type: string; p50: number }[];
      errors: { endpoint: string; errors: string }[];
    }>(`/api/v1/performance?${RANGE}`);
    expect(page.totals.errors).toBe('40');
    expect(Math.abs(page.totals.duration_ms.p95 - 380)).toBeLessThan(5);
    expect(page.by_endpoint).toHaveLength(10);
    expect(page.by_endpoint.find((entry) => entry.endpoint === '/e1')?.error_rate).toBe('0');
    expect(page.by_agent_type[0]?.agent_type).toBe('writer');
    expect(page.errors).toEqual([{ endpoint: '/e0', error_type: null, status_code: '500', errors: '40' }]);
  });

  test('a request shows its events in order, and P7: only to whom they belong', async () => {
    const trace = await server.json<{ events: { event: { time: string } }[]; subjects: string[]; elapsed_ms: number }>(
      '/api/v1/requests/q1',
    );
    expect(trace.events).toHaveLength(5);
    const times = trace.events.map((one) => Date.parse(one.event.time));
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(trace.elapsed_ms).toBe((times.at(-1) ?? 0) - (times[0] ?? 0));
    const made = await server.request('/api/v1/keys', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ tenant: 's1', scopes: ['read'] }),
    });
    const { secret } = (await made.json()) as { secret: string };
    const headers = { authorization: `Bearer ${secret}` };
    const own = (await (await server.request('/api/v1/requests/q1', { headers })).json()) as { subjects: string[] };
    expect(own.subjects).toEqual(['s1']);
    const foreign = trace.subjects.find((subject) => subject !== 's1') ?? '';
    for (const path of [
      `/api/v1/requests/q1?subject=${foreign}`,
      `/api/v1/usage?tenant=${foreign}`,
      `/api/v1/performance?subject=${foreign}`,
      `/api/v1/subjects/${foreign}`,
      `/api/v1/data-quality?subject=${foreign}`,
      `/api/v1/meters/tokens/stream?subject=${foreign}`,
      '/api/v1/requests/nothing',
    ])
      expect([path, (await server.request(path, { headers })).status]).toEqual([path, 404]);
    const usage = (await (await server.request(`/api/v1/usage?${RANGE}`, { headers })).json()) as {
      totals: { api_calls: string };
      top_tenants?: unknown;
    };
    const mine = await query('api_calls', `${RANGE}&subject=s1`);
    expect(usage.totals.api_calls).toBe(String(mine.data[0]?.value));
    expect(usage.top_tenants).toBeUndefined();
    const subjects = (await (await server.request('/api/v1/subjects', { headers })).json()) as { key: string }[];
    expect(subjects.map((subject) => subject.key)).toEqual(['s1']);
  });
});

test('data quality: late, missing, unknown, doubled and refused; the same as metrics', async () => {
  const odd = { subject: 's1', data: { note: 'no value' } };
  await send([
    cloudEvent(8_000, Date.now() - HOUR / 2, { ...odd, type: 'queue_thing' }),
    cloudEvent(8_001, Date.now(), { ...odd, type: 'api_call' }),
    cloudEvent(8_001, Date.now(), { ...odd, type: 'api_call' }),
  ]);
  await server.settled();
  interface Report {
    late: { share: number };
    tenants: { tenant: string; duplicates: number; late_share: number | null; commit_lag_p99_seconds: number }[];
    partitions?: { pending: number; freshness_lag_seconds: number }[];
    fields: { type: string; field: string; null_share: number }[];
    unknown_event_types: { type: string }[];
    missing_values: { meter: string; share: number }[];
  }
  const report = await server.json<Report>('/api/v1/data-quality?hours=1&subject=s1');
  expect(report.partitions).toBeUndefined();
  expect(report.tenants).toMatchObject([{ tenant: 's1', duplicates: 1 }]);
  expect(report.unknown_event_types.map((one) => one.type)).toContain('queue_thing');
  expect(report.late.share).toBeGreaterThan(0);
  expect(report.missing_values.find((one) => one.meter === 'request_duration')?.share).toBe(1);
  expect(report.fields.find((one) => one.type === 'api_call' && one.field === 'endpoint')?.null_share).toBe(1);
  const whole = await server.json<Report>('/api/v1/data-quality?hours=168');
  expect(whole.partitions?.every((one) => one.pending === 0 && one.freshness_lag_seconds === 0)).toBe(true);
  expect(whole.tenants).toHaveLength(TENANTS);
  const metrics = await (await server.request('/metrics')).text();
  expect(metrics).toMatch(/tidemark_quality_missing_value_share\{meter="request_duration"\} /);
  expect(metrics).toMatch(/tidemark_quality_freshness_lag_seconds\{partition="0"\} 0/);
});

/** Server-sent events of a stream, until enough were seen. */
async function listen(path: string, headers: Record<string, string>, enough: (seen: StreamEvent[]) => boolean) {
  const stop = new AbortController();
  const answer = await server.request(path, { headers, signal: stop.signal });
  expect(answer.headers.get('content-type')).toContain('text/event-stream');
  const seen: StreamEvent[] = [];
  let text = '';
  for await (const chunk of answer.body ?? []) {
    text += Buffer.from(chunk).toString('utf8');
    const blocks = text.split('\n\n');
    text = blocks.pop() ?? '';
    for (const block of blocks) {
      const id = /^id: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (id !== undefined && data !== undefined) seen.push({ id, rows: (JSON.parse(data) as { rows: Row[] }).rows });
    }
    if (enough(seen)) break;
  }
  stop.abort();
  return seen;
}
interface StreamEvent {
  id: string;
  rows: Row[];
}

test('a stream shows new values as batches commit, and goes on after Last-Event-ID', async () => {
  const path = `/api/v1/meters/feature_usage/stream?from=${iso(START)}&groupBy=feature`;
  const newest = (seen: StreamEvent[]) =>
    seen.flatMap((one) => one.rows).findLast((row) => row.groupBy.feature === 'live')?.value;
  let next = 7_000;
  const use = () => send([cloudEvent(next++, Date.now(), { type: 'feature_use', data: { feature: 'live' } })]);
  const reading = listen(path, {}, (seen) => newest(seen) === '2');
  await use();
  await use();
  const seen = await reading;
  const last = seen.at(-1)?.id ?? '';
  // While nobody listens, more comes in; who comes back gets the newest value.
  await use();
  await server.settled();
  const again = await listen(path, { 'last-event-id': last }, (more) => newest(more) === '3');
  expect(Number(again.at(-1)?.id)).toBeGreaterThan(Number(last));
});

describe('P6: bad questions have their own errors', () => {
  test.each([
    ['/api/v1/meters/tokens/query?orderBy=nope', 'invalid_parameter'],
    ['/api/v1/meters/tokens/query?order=asc', 'invalid_parameter'],
    ['/api/v1/meters/tokens/query?top=0', 'invalid_parameter'],
    ['/api/v1/meters/tokens/query?limit=10001', 'invalid_parameter'],
    ['/api/v1/meters/tokens/query?cursor=abc', 'invalid_cursor'],
    ['/api/v1/meters/tokens/query?groupBy=subject&cursor=WzEsIltdIl0', 'invalid_cursor'],
    ['/api/v1/meters/tokens/query?empty=one', 'invalid_parameter'],
    ['/api/v1/meters/api_calls/query?quantile=0.5', 'quantile_without_sketch'],
    ['/api/v1/meters/request_duration/query?quantile=2', 'invalid_parameter'],
    ['/api/v1/meters/tokens/query?filterGroupBy[nope]=1', 'unknown_group'],
    ['/api/v1/meters/tokens/group-by/nope/values', 'unknown_group'],
    ['/api/v1/meters/nope/stream', 'unknown_meter'],
    ['/api/v1/usage?windowSize=MINUTE', 'invalid_parameter'],
    ['/api/v1/data-quality?hours=0', 'invalid_parameter'],
    ['/api/v1/usage?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z', 'invalid_range'],
    ['/api/v1/performance?windowTimeZone=Mars', 'invalid_parameter'],
  ])('%s: %s', async (path, code) => {
    const answer = await server.request(path);
    expect([answer.status < 500, ((await answer.json()) as { code: string }).code]).toEqual([true, code]);
  });
});

test('P14: open streams do not hold up the end', async () => {
  const open = await server.request('/api/v1/meters/tokens/stream?windowSize=DAY');
  expect(open.status).toBe(200);
  const began = performance.now();
  expect(await server.stop()).toBe(0);
  expect(performance.now() - began).toBeLessThan(10_000);
});
