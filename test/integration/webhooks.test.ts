import { createHmac } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  announce,
  checkBudgets,
  closePeriods,
  createBudget,
  createEndpoint,
  deliverDue,
  listDeliveries,
  RETRY_AFTER_SECONDS,
  redeliver,
  removeEndpoint,
} from '../../billing/index.ts';
import { billingOn, makePlan, subscribe } from '../support/billing.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors } from '../support/processors.ts';
import { startReceiver } from '../support/webhook-receiver.ts';

let database: TestDatabase;
let receiver: Awaited<ReturnType<typeof startReceiver>>;
/** What is put off to "now" by the database's clock is due by this one, however slow the machine is. */
const HOUR = 3_600_000;
let now = Date.now();
const clock = () => now;
const deliveries = () => listDeliveries(database.pool, { status: null, before: null, limit: 100 });

beforeAll(async () => {
  database = await createTestDatabase();
  receiver = await startReceiver();
});
afterAll(async () => {
  await receiver.stop();
  await database.drop();
});

test('a delivery is signed as Standard Webhooks says, tried again with growing pauses, and logged', async () => {
  const { id, secret } = await createEndpoint(database.pool, { url: receiver.url, events: ['statement.closed'] });
  await announce(database.pool, [
    { event: 'statement.closed', id: 'one', data: { number: 'S-1' } },
    { event: 'budget.crossed', id: 'two', data: {} },
  ]);
  // The same announcement again is the same message.
  await announce(database.pool, [{ event: 'statement.closed', id: 'one', data: { number: 'S-1' } }]);
  now = Date.now() + HOUR;
  receiver.answers.push(500, 503);
  expect(await deliverDue(database.pool, clock)).toEqual({ delivered: 0, failed: 1 });
  expect(await deliverDue(database.pool, clock)).toEqual({ delivered: 0, failed: 0 });
  now += (RETRY_AFTER_SECONDS[0] ?? 0) * 1000;
  expect(await deliverDue(database.pool, clock)).toEqual({ delivered: 0, failed: 1 });
  expect(await deliveries()).toMatchObject([
    { status: 'pending', attempts: 2, last_status: 503, last_error: 'answered 503' },
  ]);
  now += (RETRY_AFTER_SECONDS[1] ?? 0) * 1000;
  expect(await deliverDue(database.pool, clock)).toEqual({ delivered: 1, failed: 0 });
  expect(await deliveries()).toMatchObject([{ status: 'delivered', attempts: 3, last_status: 204 }]);
  expect(receiver.received).toHaveLength(3);
  for (const { headers, body } of receiver.received) {
    const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
    const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
    expect(headers['webhook-id']).toBe('one');
    expect(headers['webhook-signature']).toBe(`v1,${createHmac('sha256', key).update(signed).digest('base64')}`);
  }
  await removeEndpoint(database.pool, id);
});

test('what fails to the end, or is gone (410), is given up, and sent again when asked', async () => {
  const { id } = await createEndpoint(database.pool, { url: receiver.url, events: [] });
  await announce(database.pool, [{ event: 'statement.closed', id: 'gone', data: {} }]);
  now = Date.now() + HOUR;
  receiver.answers.push(410);
  expect(await deliverDue(database.pool, clock)).toEqual({ delivered: 0, failed: 1 });
  const [failed] = await deliveries();
  expect(failed).toMatchObject({ status: 'failed', last_status: 410 });
  expect(await redeliver(database.pool, failed?.id ?? 0)).toBe(true);
  expect(await deliverDue(database.pool, clock)).toEqual({ delivered: 1, failed: 0 });
  await announce(database.pool, [{ event: 'statement.closed', id: 'tried', data: {} }]);
  for (let i = 0; i <= RETRY_AFTER_SECONDS.length; i++) {
    receiver.answers.push(500);
    now += 100_000_000;
    await deliverDue(database.pool, clock);
  }
  expect((await deliveries())[0]).toMatchObject({ status: 'failed', attempts: RETRY_AFTER_SECONDS.length + 1 });
  await removeEndpoint(database.pool, id);
});

test('a budget tells of each threshold once a period', async () => {
  const { pool } = database;
  const log = await openTestLog();
  const processors = await startProcessors(pool, log);
  now = Date.parse('2026-01-20T00:00:00Z');
  await createEndpoint(pool, { url: receiver.url, events: ['budget.crossed'] });
  await makePlan(pool, 'p', [{ meter: 'tokens', model: 'per_unit', unit_amount: '1' }]);
  const { tenantId } = await subscribe(pool, 'acme', 'p', '2026-01-01T00:00:00Z');
  await createBudget(pool, { tenantId, currency: 'USD', amount: '100', thresholds: [50, 80, 100] });
  const use = async (key: string, tokens: number) => {
    const attributes = new Map([['tokens_consumed', { kind: 'long' as const, value: tokens }]]);
    await log.append([records(0, [event(key, { timestamp: Date.UTC(2026, 0, 10), attributes })])]);
    await committed(pool, Number(key.slice(1)));
  };
  const told = async () => (await deliveries()).map((one) => one.message_id.split(':').at(-1));
  await use('k1', 40);
  expect(await checkBudgets(billingOn(pool, clock))).toBe(0);
  await use('k2', 45);
  expect(await checkBudgets(billingOn(pool, clock))).toBe(2);
  expect(await checkBudgets(billingOn(pool, clock))).toBe(0);
  await use('k3', 15);
  expect(await checkBudgets(billingOn(pool, clock))).toBe(1);
  expect((await told()).slice(0, 3)).toEqual(['100', '80', '50']);
  await processors.stop();
  await log.dispose();
});

test('late usage announces adjustment.created beside statement.closed', async () => {
  const { pool } = database;
  const log = await openTestLog();
  await pool.query('DELETE FROM log_offsets');
  const processors = await startProcessors(pool, log);
  await createEndpoint(pool, { url: receiver.url, events: ['adjustment.created'] });
  now = Date.parse('2026-02-02T00:00:00Z');
  await closePeriods(billingOn(pool, clock), now);
  const attributes = new Map([['tokens_consumed', { kind: 'long' as const, value: 7 }]]);
  await log.append([records(0, [event('late', { timestamp: Date.UTC(2026, 0, 11), attributes })])]);
  await committed(pool, 1);
  now = Date.parse('2026-03-02T00:00:00Z');
  await closePeriods(billingOn(pool, clock), now);
  const [last] = await deliveries();
  expect(last).toMatchObject({ event: 'adjustment.created', message_id: 'adjustment.created:S-000002' });
  await processors.stop();
  await log.dispose();
});
