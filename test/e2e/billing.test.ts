import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { canonicalJson, checksumOf } from '../../billing/index.ts';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';
import { startReceiver } from '../support/webhook-receiver.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const server = new TestServer();
let receiver: Awaited<ReturnType<typeof startReceiver>>;
let secret = '';
/** Yesterday's whole day was a period, two days ago another one: nothing here depends on which day it is. */
const DAY = 86_400_000;
const today = Math.floor(Date.now() / DAY) * DAY;
const at = (ms: number) => new Date(ms).toISOString();
/** A month ago, so that one period has ended just now. */
const start = (() => {
  const date = new Date(today - 2 * DAY);
  // Days that every month has.
  date.setUTCDate(Math.min(date.getUTCDate(), 28));
  date.setUTCMonth(date.getUTCMonth() - 1);
  return date.getTime();
})();

interface Answer {
  status: number;
  body: Record<string, unknown> & { data?: Record<string, unknown>[] };
}
async function call(method: string, path: string, body?: unknown, key = ADMIN_KEY): Promise<Answer> {
  const answer = await server.request(path, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  return { status: answer.status, body: text === '' ? {} : JSON.parse(text) };
}
const tidemark = (...args: string[]) =>
  promisify(execFile)(process.execPath, [MAIN, ...args, '--url', server.url, '--key', ADMIN_KEY], { encoding: 'utf8' });

beforeAll(async () => {
  receiver = await startReceiver();
  await server.start({ BILLING_GRACE_HOURS: '0' });
});
afterAll(async () => {
  await server.dispose();
  await receiver.stop();
});

test('P12: a preview rates what it is given, to the last digit, and stores nothing', async () => {
  const { status, body } = await call('POST', '/api/v1/rating/preview', {
    currency: 'USD',
    charges: [
      { model: 'flat', amount: 30 },
      {
        meter: 'anything',
        model: 'graduated',
        tiers: [
          { up_to: 5, unit_amount: '7' },
          { up_to: null, unit_amount: 6.5 },
        ],
      },
    ],
    usage: { anything: 6 },
  });
  expect(status).toBe(200);
  expect(body).toMatchObject({
    currency: 'USD',
    total: '71.50',
    lines: [{ meter: null, amount: '30.00' }, { amount: '41.50' }],
  });
  const exact = await server.request('/api/v1/rating/preview', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"currency":"KWD","charges":[{"meter":"m","model":"per_unit","unit_amount":1}],"usage":{"m":12345678901234567.125}}',
  });
  expect(await exact.json()).toMatchObject({ total: '12345678901234567.125' });
});

test('P6: what is wrong with a plan or a subscription has its own code and place, and is no 5xx', async () => {
  const plan = { key: 'p', name: 'P', currency: 'USD', interval: 'month', charges: [] as unknown[] };
  const wrong = async (path: string, body: unknown) => {
    const answer = await call('POST', path, body);
    expect(answer.status).toBeLessThan(500);
    return [answer.status, answer.body.code, answer.body.field];
  };
  const tiers = [{ up_to: 10, unit_amount: 1 }];
  expect(await wrong('/api/v1/plans', { ...plan, charges: [{ meter: 'tokens', model: 'volume', tiers }] })).toEqual([
    400,
    'invalid_charge',
    'charges[0].tiers[0].up_to',
  ]);
  expect(await wrong('/api/v1/plans', { ...plan, currency: 'XAU' })).toEqual([400, 'invalid_currency', 'currency']);
  expect(
    await wrong('/api/v1/plans', { ...plan, charges: [{ meter: 'nope', model: 'per_unit', unit_amount: 1 }] }),
  ).toEqual([404, 'unknown_meter', 'charges[0].meter']);
  expect(
    await wrong('/api/v1/plans', {
      ...plan,
      charges: [{ meter: 'request_duration', model: 'per_unit', unit_amount: 1 }],
    }),
  ).toEqual([400, 'unbillable_meter', 'charges[0].meter']);
  expect(await wrong('/api/v1/plans', { ...plan, interval: 'day' })).toEqual([400, 'invalid_body', 'interval']);
  expect((await wrong('/api/v1/subscriptions', { tenant: 'nobody', plan: 'p', start: at(start) }))[0]).toBe(404);
  for (const body of [
    '{"currency":"USD","charges":[{"__proto__":{"model":"flat"},"model":"flat","amount":"1"}]}',
    '[1]',
    'null',
    '{',
    '{"currency":"\\ud800","charges":[]}',
  ]) {
    const answer = await server.request('/api/v1/rating/preview', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    expect(answer.status).toBeLessThan(500);
  }
});

test('P8: usage becomes a statement by itself, which is told of, replayed, printed and never changed', async () => {
  const hook = await call('POST', '/api/v1/webhooks', { url: receiver.url });
  secret = String(hook.body.secret);
  await call('POST', '/api/v1/tenants', { slug: 'acme', name: 'Acme & Söhne', customer_id: 'acme' });
  const plan = await call('POST', '/api/v1/plans', {
    key: 'pro',
    name: 'Pro',
    currency: 'EUR',
    interval: 'month',
    charges: [
      { name: 'Base fee', model: 'flat', amount: '20' },
      {
        name: 'Tokens, model large',
        meter: 'tokens',
        filters: { model: ['large'] },
        model: 'per_unit',
        unit_amount: '0.01',
      },
      {
        name: 'Tokens, model small',
        meter: 'tokens',
        filters: { model: ['small'] },
        model: 'per_unit',
        unit_amount: '0.001',
      },
      {
        name: 'Calls',
        meter: 'api_calls',
        model: 'graduated',
        included: '1',
        tiers: [
          { up_to: 2, unit_amount: '1' },
          { up_to: null, unit_amount: '0.5' },
        ],
      },
    ],
  });
  expect([plan.status, plan.body.version]).toEqual([201, 1]);
  // The same again is the same version; another price is the next one.
  const lines = Array.from({ length: 4 }, (_, i) =>
    JSON.stringify({
      timestamp: at(start + (i + 1) * 5 * DAY),
      customer_id: 'acme',
      request_id: `r${i}`,
      endpoint: '/v1',
      model: i < 3 ? 'large' : 'small',
      tokens_consumed: '1000.5',
      status_code: 200,
    }),
  );
  expect((await server.post(lines)).status).toBe(204);
  await server.settled();
  const subscription = await call('POST', '/api/v1/subscriptions', {
    tenant: 'acme',
    plan: 'pro',
    start: at(start),
    end: null,
  });
  expect(subscription.status).toBe(201);
  const closed = await until(async () => (await call('GET', '/api/v1/statements?tenant=acme')).body.data?.[0]);
  // 20 + 3001.5 × 0.01 + 1000.5 × 0.001 + (2 + 0.5)
  expect(closed).toMatchObject({
    number: 'S-000001',
    status: 'closed',
    currency: 'EUR',
    total: '53.52',
    amount_due: '53.52',
  });
  const shown = await call('GET', '/api/v1/statements/S-000001');
  const { checksum, status: _status, void: _void, lines: shownLines, ...head } = shown.body;
  expect(checksumOf(canonicalJson(head), (shownLines as unknown[]).map(canonicalJson))).toBe(checksum);
  expect((await call('POST', '/api/v1/statements/S-000001/replay')).body).toMatchObject({ identical: true, checksum });
  const told = await until(async () => receiver.received[0]);
  const { 'webhook-id': id, 'webhook-timestamp': time, 'webhook-signature': signature } = told.headers;
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  expect(signature).toBe(`v1,${createHmac('sha256', key).update(`${id}.${time}.${told.body}`).digest('base64')}`);
  expect(JSON.parse(told.body)).toMatchObject({
    type: 'statement.closed',
    data: { number: 'S-000001', total: '53.52' },
  });
  await until(async () => (await call('GET', '/api/v1/webhooks/deliveries?status=delivered')).body.data?.[0]);
});

test('a statement as CSV and as a page, names escaped; its lines for other systems', async () => {
  const csv = await (await server.request('/api/v1/statements/1', { headers: { accept: 'text/csv' } })).text();
  expect(csv.split('\r\n')[0]).toContain('id,statement,line,kind');
  expect(csv).toContain('S-000001/2,S-000001,2,charge,,acme,');
  const page = await server.request('/api/v1/statements/S-000001?format=html');
  expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
  const html = await page.text();
  expect(html).toContain('Statement S-000001');
  expect(html).toContain('53.52 EUR');
  const first = await call('GET', '/api/v1/statement-lines?limit=3');
  expect(first.body.data).toHaveLength(3);
  const rest = await call('GET', `/api/v1/statement-lines?limit=3&cursor=${first.body.next}`);
  expect(rest.body.data?.map((line) => line.id)).toEqual(['S-000001/4']);
});

test('P7: a tenant sees its own statements, and nothing of another', async () => {
  await call('POST', '/api/v1/tenants', { slug: 'rival', name: 'Rival', customer_id: 'rival' });
  const keyOf = async (tenant: string) =>
    String((await call('POST', '/api/v1/keys', { tenant, scopes: ['read'] })).body.secret);
  const [own, other] = [await keyOf('acme'), await keyOf('rival')];
  expect((await call('GET', '/api/v1/statements', undefined, own)).body.data).toHaveLength(1);
  expect((await call('GET', '/api/v1/statements/1', undefined, own)).status).toBe(200);
  expect((await call('GET', '/api/v1/statements', undefined, other)).body.data).toEqual([]);
  expect((await call('GET', '/api/v1/statements?tenant=acme', undefined, other)).status).toBe(404);
  expect((await call('GET', '/api/v1/statements/1', undefined, other)).status).toBe(404);
  expect((await call('POST', '/api/v1/statements/1/replay', undefined, other)).status).toBe(404);
  expect((await call('GET', '/api/v1/statement-lines', undefined, other)).body.data).toEqual([]);
  for (const path of ['/api/v1/plans', '/api/v1/business', '/api/v1/webhooks'])
    expect((await call('GET', path, undefined, own)).status).toBe(403);
});

test('drafts, what-if and the business in numbers', async () => {
  const { body: drafts } = await call('GET', '/api/v1/statements?tenant=acme&status=draft');
  expect(drafts.data).toMatchObject([{ number: null, status: 'draft', total: '20.00' }]);
  const range = { from: at(start), to: at(today + DAY) };
  const { body: other } = await call('POST', '/api/v1/rating/what-if', {
    ...range,
    currency: 'EUR',
    charges: [{ meter: 'api_calls', model: 'per_unit', unit_amount: '10' }],
  });
  expect(other).toMatchObject({ actual: '53.52', what_if: '40.00', difference: '-13.52' });
  const { body: business } = await call('GET', `/api/v1/business?from=${at(start - DAY)}&to=${at(today + DAY)}`);
  expect(business).toMatchObject({
    customers: { active: 1, subscribed: 1, paying: 1 },
    mrr: [{ currency: 'EUR', start: '0.00', new: '20.00', end: '20.00' }],
    revenue: [{ currency: 'EUR', total: '53.52', statements: 1 }],
    top_by_revenue: [{ tenant: 'acme', total: '53.52' }],
    top_by_usage: [{ tenant: 'acme', meter: 'api_calls', quantity: '4' }],
    revenue_by_plan: [{ plan: 'pro', total: '53.52', customers: 1 }],
  });
});

test('P8: an event that is voided after the close comes off the next statement; the closed one stays as it was', async () => {
  const gone = await server.request('/api/v1/events/r0?subject=acme&reason=test', { method: 'DELETE' });
  expect(gone.status).toBeLessThan(300);
  await server.settled();
  const [draft] = (await call('GET', '/api/v1/statements?tenant=acme&status=draft')).body.data ?? [];
  // Tokens: 20.01 instead of 30.02 (30.015 was rounded up); calls: half of one less.
  expect(draft).toMatchObject({
    total: '9.49',
    lines: [
      { kind: 'charge', amount: '20.00' },
      { quantity: '0' },
      { quantity: '0' },
      { quantity: '0' },
      { kind: 'adjustment', adjusts: 'S-000001', meter: 'tokens', quantity: '-1000.5', amount: '-10.01' },
      { kind: 'adjustment', adjusts: 'S-000001', meter: 'api_calls', quantity: '-1', amount: '-0.50' },
    ],
  });
  expect((await call('POST', '/api/v1/statements/S-000001/replay')).body).toMatchObject({ identical: true });
});

test('tidemark plans and statements say the same in a terminal; replay ends with 0 where it is identical', async () => {
  expect((await tidemark('statements', 'list', '--tenant', 'acme')).stdout).toContain('S-000001');
  expect(JSON.parse((await tidemark('statements', 'replay', 'S-000001')).stdout)).toMatchObject({ identical: true });
  expect(JSON.parse((await tidemark('statements', 'close')).stdout)).toMatchObject({ statements: 0 });
  await expect(tidemark('plans', 'show', 'nope')).rejects.toThrow(/no plan/);
});

test('P8: a statement whose days have left the database is recomputed from the archive, byte for byte', async () => {
  const before = new Date(today + DAY).toISOString().slice(0, 10);
  const { body } = await call('POST', '/api/v1/archives/run', { before });
  const run = await until(async () => {
    const { status, result } = (await call('GET', `/api/v1/jobs/${body.job}`)).body;
    return status === 'succeeded' ? (result as { rows: number }) : undefined;
  });
  expect(run.rows).toBeGreaterThanOrEqual(4);
  const [closed] = (await call('GET', '/api/v1/statements?tenant=acme')).body.data ?? [];
  const replay = await call('POST', `/api/v1/statements/${closed?.number}/replay`);
  expect(replay.body).toMatchObject({ identical: true });
});
