import { afterAll, beforeAll, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer } from '../support/server.ts';

const server = new TestServer();
const MINUTE = new Date(Math.floor(Date.now() / 60_000) * 60_000 - 10 * 60_000).toISOString();
beforeAll(async () => {
  await server.start({ PROCESSOR_LINGER_MS: '0', SPREAD_TENANTS: 'wide=4' });
});
afterAll(() => server.dispose());

const send = (method: string, path: string, body?: unknown, key = ADMIN_KEY) =>
  server.request(path, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
const codeOf = async (answer: Promise<Response>) => ((await (await answer).json()) as { code?: string }).code;
const line = (customer: string, key: string, tokens: number, more: object = {}) =>
  JSON.stringify({
    timestamp: MINUTE,
    customer_id: customer,
    idempotency_key: key,
    endpoint: '/x',
    model: 'm',
    user_id: key,
    tokens_consumed: tokens,
    ...more,
  });
async function tokens(subject: string, meter = 'tokens'): Promise<number> {
  await server.settled();
  const { data } = await server.json<{ data: { value: number }[] }>(`/api/v1/meters/${meter}/query?subject=${subject}`);
  return data.reduce((sum, row) => sum + row.value, 0);
}
interface Audit {
  data: { action: string; id: string; subject: string; source: string | null; actor: string; reason: string | null }[];
}

test('P3, P4: a voided event counts no more in any meter; who, when and why is on record', async () => {
  await server.post([line('acme', 'a', 10), line('acme', 'b', 5), line('acme', 'c', 1)]);
  // Not waited for: the event may still be on its way.
  const answer = await send('DELETE', '/api/v1/events/b', { reason: 'sent by mistake' });
  expect(answer.status).toBe(202);
  expect(await answer.json()).toMatchObject({ id: 'b', subject: 'acme', status: 'accepted' });
  expect(await tokens('acme')).toBe(11);
  expect(await tokens('acme', 'api_calls')).toBe(2);
  expect(await tokens('acme', 'active_users')).toBe(2);
  expect(await server.json<Audit>('/api/v1/withdrawals?subject=acme')).toMatchObject({
    data: [{ action: 'void', id: 'b', subject: 'acme', source: null, actor: 'admin', reason: 'sent by mistake' }],
  });
  // The same void again is no other one.
  expect((await send('DELETE', '/api/v1/events/b?subject=acme')).status).toBe(202);
  expect(await tokens('acme')).toBe(11);
  // A window of which nothing is left is absent.
  for (const id of ['a', 'c']) await send('DELETE', `/api/v1/events/${id}?subject=acme&reason=all`);
  expect(await server.settled()).toMatchObject({ received: 7, accepted: 6, duplicate: 1, dead_lettered: 0 });
  expect((await server.json<{ data: unknown[] }>('/api/v1/meters/tokens/query?subject=acme')).data).toEqual([]);
});

test('P3, P6: a correcting event counts in place of the one it replaces, once; over several partitions too', async () => {
  const keys = Array.from({ length: 12 }, (_, i) => `w${i}`);
  await server.post(keys.map((key, i) => line('wide', key, i)));
  expect(await tokens('wide')).toBe(66);
  await server.post(keys.map((key) => line('wide', `${key}-mended`, 100, { replaces: key, reason: 'wrong price' })));
  expect(await tokens('wide')).toBe(1200);
  const { data } = await server.json<Audit>('/api/v1/withdrawals?subject=wide&id=w3');
  expect(data).toMatchObject([{ action: 'replace', id: 'w3', actor: 'admin', reason: 'wrong price' }]);
  // A second correction of the same event is refused where operators look.
  await server.post([line('wide', 'w3-again', 7, { replaces: 'w3' })]);
  expect(await tokens('wide')).toBe(1200);
  const letters = await server.json<{ data: { reason: string; tenant: string }[] }>('/api/v1/dead-letters');
  expect(letters.data).toMatchObject([{ reason: 'already_replaced', tenant: 'wide' }]);
});

test('P3: corrections of corrections go where the first event is counted, sent alone or together', async () => {
  const keys = Array.from({ length: 12 }, (_, i) => `v${i}`);
  await server.post(keys.map((key) => line('wide', key, 1_000_000)));
  const before = (await tokens('wide')) - 12_000_000;
  await server.post(keys.map((key) => line('wide', `${key}-1`, 1, { replaces: key })));
  // Not waited for: the first correction may still be on its way. Then two in one body, and one of an earlier body.
  await server.post(keys.map((key) => line('wide', `${key}-2`, 10, { replaces: `${key}-1` })));
  await server.post(
    keys.flatMap((key) => [
      line('wide', `${key}-3`, 100, { replaces: `${key}-2` }),
      line('wide', `${key}-4`, 1_000, { replaces: `${key}-3` }),
    ]),
  );
  await server.post(keys.map((key) => line('wide', `${key}-5`, 10_000, { replaces: `${key}-4` })));
  expect((await tokens('wide')) - before).toBe(120_000);
});

test("P3: of CloudEvents the pair of source and id is voided or replaced; another source's event of that id is not", async () => {
  const cloud = (source: string, id: string, count: number, more: object = {}) => ({
    specversion: '1.0',
    id,
    source,
    type: 'call',
    subject: 'cloudy',
    time: MINUTE,
    data: { tokens_consumed: count, ...more },
  });
  const post = (events: unknown[]) => send('POST', '/api/v1/events', events);
  expect((await post([cloud('s1', '1', 10), cloud('s2', '1', 20), cloud('s1', '2', 40)])).status).toBe(204);
  expect(await tokens('cloudy')).toBe(70);
  expect(await codeOf(send('DELETE', '/api/v1/events/1?subject=cloudy'))).toBe('ambiguous_event');
  expect((await send('DELETE', '/api/v1/events/1?subject=cloudy&source=s2')).status).toBe(202);
  await post([cloud('s1', '3', 1, { replaces: '2' })]);
  expect(await tokens('cloudy')).toBe(11);
});

test('P6, P7: unknown events, other tenants and reserved types are refused', async () => {
  await server.post([line('victim', 'v1', 9)]);
  await server.settled();
  expect(await codeOf(send('DELETE', '/api/v1/events/nothing'))).toBe('not_found');
  expect(await codeOf(send('DELETE', '/api/v1/events/v1?subject=acme'))).toBe('not_found');
  await send('POST', '/api/v1/tenants', { slug: 'other', name: 'other' });
  const key = async (scopes: string[]) => {
    const made = await send('POST', '/api/v1/keys', { tenant: 'other', scopes });
    return ((await made.json()) as { secret: string }).secret;
  };
  expect(await codeOf(send('DELETE', '/api/v1/events/v1', undefined, await key(['admin'])))).toBe('not_found');
  expect(await codeOf(send('DELETE', '/api/v1/events/v1', undefined, await key(['ingest', 'read'])))).toBe('forbidden');
  expect(await tokens('victim')).toBe(9);
  const refused = await server.post([
    line('victim', 'x', 1, { type: 'tidemark.void' }),
    line('victim', 'y', 1, { replaces: 5 }),
  ]);
  expect(await refused.json()).toMatchObject({
    rejected: [
      { index: 0, code: 'invalid_field', field: 'type' },
      { index: 1, code: 'invalid_field', field: 'replaces' },
    ],
  });
});
