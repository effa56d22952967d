import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const server = new TestServer();
const DAY = 86_400_000;
const NOON = Math.floor(Date.now() / DAY) * DAY - DAY / 2;
const iso = (ms: number) => new Date(ms).toISOString();
const json = { 'content-type': 'application/json' };

beforeAll(async () => {
  await server.start({ PROCESSOR_LINGER_MS: '0', METER_REFRESH_MS: '50' });
});
afterAll(() => server.dispose());

interface Row {
  value: string;
  groupBy: Record<string, string | null>;
}

test('P3: pages of averages by value, which have more digits than they show, have each row once', async () => {
  const definition = { eventType: 'level', aggregation: 'TIME_WEIGHTED_AVG', valueProperty: '$.seats' };
  const made = await server.request('/api/v1/meters', {
    method: 'POST',
    headers: json,
    body: JSON.stringify({ slug: 'seats_avg', ...definition, groupBy: { plan: '$.plan' } }),
  });
  expect(made.status).toBe(201);
  // Thirds and sevenths of an hour: averages without end.
  const lines = Array.from({ length: 30 }, (_, i) =>
    JSON.stringify({
      timestamp: iso(NOON + i * 7_000),
      customer_id: 'edges',
      idempotency_key: `e${i}`,
      type: 'level',
      plan: `p${i % 9}`,
      seats: (i % 5) + 1,
    }),
  );
  expect((await server.post(lines)).status).toBe(204);
  await server.settled();
  const url = `/api/v1/meters/seats_avg/query?from=${iso(NOON)}&to=${iso(NOON + 3_540_000)}&groupBy=plan`;
  const exact = { headers: { accept: 'application/vnd.tidemark+json' } };
  const ask = async (more: string) => (await server.request(url + more, exact)).json();
  await until(async () => (((await ask('')) as { data: Row[] }).data.length === 9 ? true : undefined));
  for (const order of ['asc', 'desc']) {
    const { data: whole } = (await ask(`&orderBy=value&order=${order}`)) as { data: Row[] };
    expect(whole.some((row) => row.value.replace(/\D/g, '').length === 20)).toBe(true);
    const paged: Row[] = [];
    for (let cursor = ''; paged.length <= whole.length; ) {
      const page = (await ask(`&orderBy=value&order=${order}&limit=1${cursor}`)) as {
        data: Row[];
        next: string | null;
      };
      paged.push(...page.data);
      if (page.next === null) break;
      cursor = `&cursor=${page.next}`;
    }
    expect(paged).toEqual(whole);
  }
});

describe('P6: times and cursors that PostgreSQL does not have are the caller’s mistake', () => {
  const cursor = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString('base64url');
  const huge = Number.MAX_SAFE_INTEGER;
  test.each([
    ['/api/v1/meters/tokens/query?from=2026-02-30&to=2026-03-05', 'invalid_parameter'],
    ['/api/v1/meters/tokens/query?from=0000-01-01&to=2026-03-05', 'invalid_parameter'],
    ['/api/v1/events?to=0000-01-01T00:00:00Z', 'invalid_parameter'],
    ['/api/v1/usage?from=0000-01-01', 'invalid_parameter'],
    [`/api/v1/events?cursor=${cursor(huge, 1, 1)}`, 'invalid_cursor'],
    [`/api/v1/withdrawals?cursor=${cursor(1, huge, 1)}`, 'invalid_cursor'],
    [`/api/v1/statement-lines?cursor=${cursor(huge, huge)}`, 'invalid_cursor'],
    [`/api/v1/statements?cursor=${cursor(huge)}`, 'invalid_cursor'],
    [`/api/v1/tenants?cursor=${cursor('\0')}`, 'invalid_cursor'],
    [`/api/v1/subjects?cursor=${cursor('\ud800')}`, 'invalid_cursor'],
    [`/api/v1/jobs?cursor=${cursor('Feb 3', '00000000-0000-0000-0000-000000000000')}`, 'invalid_cursor'],
  ])('%s', async (path, code) => {
    const answer = await server.request(path);
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([400, code]);
  });

  test('a meter begins at a moment that does not depend on the server’s zone', async () => {
    for (const eventFrom of ['Feb 3', '2026-02-30', '2026-02-03T10:00:00']) {
      const body = JSON.stringify({ slug: 'begins', eventType: 'x', aggregation: 'COUNT', eventFrom });
      const answer = await server.request('/api/v1/meters', { method: 'POST', headers: json, body });
      expect([answer.status, ((await answer.json()) as { field: string }).field]).toEqual([400, 'eventFrom']);
    }
  });

  test('an import says at once what is before 1970', async () => {
    const line = { timestamp: '1969-12-31T23:59:59Z', customer_id: 'edges', idempotency_key: 'old' };
    const answer = await server.post([JSON.stringify(line)], { 'tidemark-backfill': 'true' });
    expect(((await answer.json()) as { rejected: object[] }).rejected).toMatchObject([{ code: 'too_old' }]);
  });
});

test('a search over two thousand years is no more work than its data', async () => {
  const begun = performance.now();
  const found = await server.json<unknown[]>('/api/v1/events?subject=edges&from=0001-02-01');
  expect(found).toHaveLength(30);
  expect(performance.now() - begun).toBeLessThan(5_000);
});

test('a body that may be left out may be left out by clients that always name its type', async () => {
  const close = await server.request('/api/v1/statements/close', { method: 'POST', headers: json });
  expect(close.status).toBe(202);
  const gone = await server.request('/api/v1/events/e1?subject=edges', { method: 'DELETE', headers: json });
  expect(gone.status).toBe(202);
  const needed = await server.request('/api/v1/subscriptions', { method: 'POST', headers: json });
  expect([needed.status, ((await needed.json()) as { code: string }).code]).toEqual([400, 'invalid_body']);
});

describe('P7: what a key may see', () => {
  const post = (path: string, body: object) =>
    server.request(path, { method: 'POST', headers: json, body: JSON.stringify(body) });

  test('ends when it is revoked, also in a stream that is open', async () => {
    await post('/api/v1/tenants', { slug: 'guest', name: 'Guest' });
    const made = await post('/api/v1/keys', { tenant: 'guest', scopes: ['read'] });
    expect(made.status).toBe(201);
    const { id, secret } = (await made.json()) as { id: string; secret: string };
    const headers = { authorization: `Bearer ${secret}` };
    const stream = await server.request('/api/v1/meters/tokens/stream', { headers });
    const reader = stream.body?.pipeThrough(new TextDecoderStream()).getReader();
    let seen = '';
    const read = async () => {
      const piece = await reader?.read();
      seen += piece?.value ?? '';
      return piece?.done === false;
    };
    while (!seen.includes('event: rows')) expect(await read()).toBe(true);
    expect((await server.request(`/api/v1/keys/${id}`, { method: 'DELETE' })).status).toBe(204);
    expect((await server.request('/api/v1/meters', { headers })).status).toBe(401);
    const line = { timestamp: iso(Date.now()), customer_id: 'guest', idempotency_key: 'later', tokens_consumed: 4711 };
    expect((await server.post([JSON.stringify(line)])).status).toBe(204);
    while (await read()) expect(seen).not.toContain('4711');
  });

  test('and what a platform key saw of a tenant is on record, however it asked', async () => {
    const asked = [
      'filterCustomerId=guest',
      'groupBy=endpoint,subject',
      'groupBy=model&groupBy=subject',
      'subject=guest',
    ];
    for (const more of asked)
      await server.request(`/api/v1/meters/tokens/query?${more}`, { headers: { 'tidemark-reason': more } });
    await post('/api/v1/meters/tokens/query', { filterCustomerId: ['guest'] });
    const { data } = await server.json<{ data: { action: string; reason: string | null }[] }>('/api/v1/audit?limit=9');
    expect(data.map(({ action, reason }) => reason ?? action)).toEqual(
      expect.arrayContaining([...asked, 'POST /api/v1/meters/:slug/query']),
    );
  });
});

describe('P6: who asks wrongly is told so', () => {
  test.each([
    ['query?subjct=guest', 'a misspelt filter is not answered with everybody’s numbers'],
    ['query?windowsize=DAY', 'nor a misspelt window with one number for all of it'],
    ['query?filterGroupBy=x', 'a filter names its group'],
    ['query?quantile=', 'no quantile is not the quantile 0'],
  ])('%s: %s', async (path) => {
    const answer = await server.request(`/api/v1/meters/request_duration/${path}`);
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([400, 'invalid_parameter']);
  });

  test.each([
    ['BREW /healthz HTTP/1.1\r\n\r\n', 400, 'invalid_body'],
    [`GET /healthz HTTP/1.1\r\nhost: x\r\nx: ${'x'.repeat(20_000)}\r\n\r\n`, 431, 'invalid_parameter'],
  ])('%.20s… is no request, and a problem all the same', async (bytes, status, code) => {
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
    socket.end(bytes);
    const [head = '', body = ''] = (await text(socket)).split('\r\n\r\n');
    expect(head).toContain('content-type: application/problem+json');
    expect(JSON.parse(body)).toMatchObject({ status, code });
  });

  const tidemark = (args: readonly string[], env: Record<string, string> = {}) =>
    spawnSync(process.execPath, [MAIN, ...args], {
      encoding: 'utf8',
      env: {
        ...process.env,
        TIDEMARK_ADMIN_KEY: ADMIN_KEY,
        TIDEMARK_DATA: server.data,
        PORT: new URL(server.url).port,
        LOG_LEVEL: 'error',
        ...env,
      },
    });

  test.each([
    ['plans create', ['plans', 'create', '/nowhere.json'], 'no such file'],
    ['a plan that is no JSON', ['plans', 'create', MAIN], 'is not JSON (invalid_json)'],
    ['the server’s own code', ['tenants', 'show', 'nobody'], '(not_found)'],
    ['a folder', ['import', '/', '--format', 'csv'], 'EISDIR'],
    ['a port in use', ['start'], 'EADDRINUSE'],
  ])('a command says what is wrong, in a line: %s', (_what, args, said) => {
    const own = { TIDEMARK_DATA: join(server.data, 'other') };
    const { status, stderr } = tidemark(args, args[0] === 'start' ? own : {});
    expect([status, stderr.trim().split('\n')]).toEqual([1, [expect.stringContaining(said)]]);
  });

  test('an import that was wrong is not taken for one that was done, once it is right', () => {
    const file = join(server.data, 'usage.csv');
    writeFileSync(file, `time,n\n${iso(NOON)},3\n${iso(NOON)},4\n`);
    const set = ['import', file, '--tenant', 'imported'];
    const mapped = [...set, '--map', 'timestamp=time', '--map', 'tokens_consumed=n'];
    expect(tidemark(set).status).toBe(1);
    const right = tidemark(mapped);
    expect([right.status, right.stdout]).toEqual([0, expect.stringContaining('2 events accepted')]);
    const again = tidemark(mapped);
    expect(again.stdout).toContain('resumed after line 3');
  });
});
