import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  changeSubscription,
  closePeriods,
  draftStatements,
  exportLines,
  findStatement,
  grantCredit,
  listStatements,
  loadGrants,
  loadSubscriptions,
  readLines,
  replayStatement,
  type StatementLine,
  serialOf,
  voidStatement,
} from '../../billing/index.ts';
import type { PlainEvent } from '../../schemas/index.ts';
import { billingOn, makePlan, subscribe } from '../support/billing.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors } from '../support/processors.ts';

let database: TestDatabase;
let log: Awaited<ReturnType<typeof openTestLog>>;
let processors: Awaited<ReturnType<typeof startProcessors>>;
let now = Date.parse('2026-02-02T00:00:00Z');
let sent = 0;
let serial = 0;

const deps = () => billingOn(database.pool, () => now);
const close = (before = now) => closePeriods(deps(), before);

/** Tokens used by a tenant at a time. */
const use = (tenant: string, at: string, tokens: number | string, more: Record<string, string> = {}): PlainEvent => {
  const attributes: PlainEvent['attributes'] = new Map([
    [
      'tokens_consumed',
      typeof tokens === 'number' ? { kind: 'long', value: tokens } : { kind: 'decimal', value: tokens },
    ],
  ]);
  for (const [name, value] of Object.entries(more)) attributes.set(name, { kind: 'string', value });
  return event(`k${serial++}`, { tenant, timestamp: Date.parse(at), received_at: Date.parse(at), attributes });
};
async function meter(...events: PlainEvent[]): Promise<void> {
  await log.append([records(0, events)]);
  sent += events.length;
  await committed(database.pool, sent);
}
async function linesOf(number: string): Promise<StatementLine[]> {
  const lines: StatementLine[] = [];
  for await (const line of readLines(database.pool, serialOf(number) ?? 0)) lines.push(JSON.parse(line));
  return lines;
}
const statement = async (number: string) => {
  const found = await findStatement(database.pool, serialOf(number) ?? 0);
  if (found === undefined) throw new Error(`no ${number}`);
  return found;
};

beforeAll(async () => {
  database = await createTestDatabase();
  log = await openTestLog();
  processors = await startProcessors(database.pool, log);
  await makePlan(database.pool, 'tokens', [
    { key: 'base', model: 'flat', amount: '30' },
    { key: 'cheap', meter: 'tokens', filters: { model: ['b'] }, model: 'per_unit', unit_amount: '0.001' },
    { key: 'dear', meter: 'tokens', filters: { model: ['a'] }, model: 'per_unit', unit_amount: '0.01' },
    {
      key: 'calls',
      meter: 'api_calls',
      group_by: ['endpoint'],
      model: 'graduated',
      tiers: [{ up_to: 1, unit_amount: '1' }, { unit_amount: '0.1' }],
    },
  ]);
});
afterAll(async () => {
  await processors.stop();
  await log.dispose();
  await database.drop();
});

test('P8: a period is closed once, counted, numbered, checked, and replayed from raw events byte for byte', async () => {
  await subscribe(database.pool, 'acme', 'tokens', '2026-01-01T00:00:00Z');
  await meter(
    use('acme', '2026-01-03T10:00:30Z', 1000, { model: 'a', endpoint: '/x' }),
    use('acme', '2026-01-20T10:00:30Z', '500.5', { model: 'b', endpoint: '/x' }),
    use('acme', '2026-01-31T23:59:59Z', 250, { model: 'b', endpoint: '/y' }),
    use('acme', '2026-02-01T00:00:00Z', 9999, { model: 'a', endpoint: '/x' }),
    use('other', '2026-01-03T10:00:30Z', 7777, { model: 'a', endpoint: '/x' }),
  );
  expect(await close()).toEqual({ closed: ['S-000001'], failed: [] });
  expect(await close()).toEqual({ closed: [], failed: [] });
  const { head } = await statement('S-000001');
  expect(head).toMatchObject({
    tenant: 'acme',
    period: { from: '2026-01-01T00:00:00.000Z', to: '2026-02-01T00:00:00.000Z' },
    // 30 + 750.5 × 0.001 + 1000 × 0.01 + (1 + 0.1) + 1, each line rounded
    total: '42.85',
    line_count: 5,
  });
  expect(head.positions).toMatchObject([{ partition: 0, next: sent }]);
  const lines = await linesOf('S-000001');
  expect(lines.map((line) => [line.charge, line.quantity, line.amount])).toEqual([
    ['base', '1', '30.00'],
    ['cheap', '750.5', '0.75'],
    ['dear', '1000', '10.00'],
    ['calls', '2', '1.10'],
    ['calls', '1', '1.00'],
  ]);
  expect(await replayStatement(deps(), 1)).toMatchObject({ identical: true, differences: [], lines: 5 });
});

test('P8: what arrives late is an adjustment on the next statement, which refers to the first', async () => {
  await meter(
    use('acme', '2026-01-15T00:00:00Z', 100, { model: 'a', endpoint: '/x' }),
    use('acme', '2026-01-15T00:00:00Z', 40, { model: 'b', endpoint: '/z' }),
  );
  const before = await statement('S-000001');
  // The replay of the first one stops at its positions: late events change nothing about it.
  expect(await replayStatement(deps(), 1)).toMatchObject({ identical: true });
  now = Date.parse('2026-03-02T00:00:00Z');
  const drafts = await draftStatements(
    deps(),
    await loadSubscriptions(database.pool, { ids: [before.head.subscription] }),
  );
  expect(await close()).toEqual({ closed: ['S-000002'], failed: [] });
  const lines = await linesOf('S-000002');
  const adjustments = lines.filter((line) => line.kind === 'adjustment');
  expect(
    adjustments.map((line) => [line.adjusts, line.charge, line.group, line.quantity, line.amount, line.was.quantity]),
  ).toEqual([
    ['S-000001', 'cheap', undefined, '40', '0.04', '750.5'],
    ['S-000001', 'dear', undefined, '100', '1.00', '1000'],
    ['S-000001', 'calls', { endpoint: '/x' }, '1', '0.10', '2'],
    ['S-000001', 'calls', { endpoint: '/z' }, '1', '1.00', '0'],
  ]);
  const { head } = await statement('S-000002');
  expect(drafts[0]?.head.total).toBe(head.total);
  expect(await statement('S-000001')).toEqual(before);
  expect(await replayStatement(deps(), 2)).toMatchObject({ identical: true });
  // Once told, it is not told again.
  now = Date.parse('2026-04-02T00:00:00Z');
  expect((await close()).closed).toEqual(['S-000003']);
  expect((await linesOf('S-000003')).some((line) => line.kind === 'adjustment')).toBe(false);
});

test('P8: the database refuses to change a statement, its lines, or a plan', async () => {
  for (const sql of [
    'UPDATE statements SET total = 0',
    'DELETE FROM statements',
    'TRUNCATE statement_lines CASCADE',
    `UPDATE statement_lines SET content = '{}'`,
    'DELETE FROM statement_lines',
    `UPDATE plans SET charges = '[]'`,
    'DELETE FROM credit_grants',
  ])
    await expect(database.pool.query(sql)).rejects.toThrow(/is refused/);
});

test('a replay that finds other raw events says where they differ', async () => {
  await database.pool.query(`DELETE FROM events WHERE "timestamp" = '2026-01-20T10:00:30Z'`);
  const replay = await replayStatement(deps(), 1);
  expect(replay.identical).toBe(false);
  expect(replay.differences.map((one) => one.line)).toContain(2);
});

test('void and reissue: numbers go on, the old one stays, later statements adjust the new one', async () => {
  await makePlan(database.pool, 'simple', [{ meter: 'tokens', model: 'per_unit', unit_amount: '1' }]);
  now = Date.parse('2026-02-02T00:00:00Z');
  await subscribe(database.pool, 'voided', 'simple', '2026-01-01T00:00:00Z');
  await meter(use('voided', '2026-01-03T00:00:00Z', 5));
  const [first = ''] = (await close()).closed;
  await meter(use('voided', '2026-01-04T00:00:00Z', 2));
  const again = await voidStatement(deps(), serialOf(first) ?? 0, { reason: 'a late file', reissue: true });
  expect((await statement(first)).void).toMatchObject({ reason: 'a late file', reissued_as: again });
  expect((await statement(again ?? '')).head).toMatchObject({
    total: '7.00',
    replaces: first,
    revision: 1,
    reason: 'a late file',
  });
  expect(await replayStatement(deps(), serialOf(again ?? '') ?? 0)).toMatchObject({ identical: true });
  await expect(voidStatement(deps(), serialOf(first) ?? 0, { reason: 'x', reissue: false })).rejects.toMatchObject({
    code: 'statement_void',
  });
  await meter(use('voided', '2026-01-05T00:00:00Z', 1));
  now = Date.parse('2026-03-02T00:00:00Z');
  const [next = ''] = (await close()).closed;
  expect((await linesOf(next)).filter((line) => line.kind === 'adjustment')).toMatchObject([
    { adjusts: again, quantity: '1' },
  ]);
  await expect(voidStatement(deps(), serialOf(again ?? '') ?? 0, { reason: 'x', reissue: true })).rejects.toMatchObject(
    {
      code: 'statement_adjusted',
    },
  );
  const { rows } = await database.pool.query<{ gaps: string }>(
    'SELECT (max(number) - count(*))::text AS gaps FROM statements',
  );
  expect(rows[0]?.gaps).toBe('0');
});

test('a change of plan inside a period is prorated to the second; a closed period can not be changed', async () => {
  await makePlan(database.pool, 'small', [
    { model: 'flat', amount: '31' },
    { meter: 'tokens', model: 'per_unit', unit_amount: '1' },
  ]);
  await makePlan(database.pool, 'big', [
    { model: 'flat', amount: '62' },
    { meter: 'tokens', model: 'per_unit', unit_amount: '0.5' },
  ]);
  now = Date.parse('2026-02-02T00:00:00Z');
  const { id } = await subscribe(database.pool, 'changing', 'small', '2026-01-01T00:00:00Z');
  await changeSubscription(database.pool, id, { plan: 'big', from: Date.parse('2026-01-11T12:00:30Z') });
  await meter(
    use('changing', '2026-01-05T00:00:00Z', 10),
    use('changing', '2026-01-11T11:59:59Z', 3),
    use('changing', '2026-01-11T12:00:05Z', 100),
  );
  const [number = ''] = (await close()).closed;
  // 31 × 907,230 s and 62 × 1,771,170 s of 2,678,400 s; the minute of the change belongs to the new plan
  expect((await linesOf(number)).map((line) => [line.plan, line.quantity, line.amount])).toEqual([
    ['small@1', '1', '10.50'],
    ['small@1', '13', '13.00'],
    ['big@1', '1', '41.00'],
    ['big@1', '100', '50.00'],
  ]);
  expect(await replayStatement(deps(), serialOf(number) ?? 0)).toMatchObject({ identical: true });
  await expect(
    changeSubscription(database.pool, id, { plan: 'small', from: Date.parse('2026-01-20T00:00:00Z') }),
  ).rejects.toMatchObject({ code: 'period_closed' });
  await changeSubscription(database.pool, id, { end: Date.parse('2026-02-15T00:00:00Z') });
  now = Date.parse('2026-04-02T00:00:00Z');
  const closed = (await close()).closed;
  const ends = await Promise.all(closed.map(async (one) => (await statement(one)).head));
  const last = ends.filter((head) => head.subscription === id);
  expect(last).toMatchObject([
    { period: { from: '2026-02-01T00:00:00.000Z', to: '2026-02-15T00:00:00.000Z' }, total: '31.00' },
  ]);
});

test('prepaid credit burns down, the one that expires first before the others, and a void gives it back', async () => {
  now = Date.parse('2026-02-02T00:00:00Z');
  const { tenantId, id } = await subscribe(database.pool, 'prepaid', 'simple', '2026-01-01T00:00:00Z');
  const grant = (amount: string, expiresAt: string | null) =>
    grantCredit(database.pool, {
      tenantId,
      currency: 'USD',
      amount,
      note: null,
      expiresAt: expiresAt === null ? null : Date.parse(expiresAt),
    });
  await grant('100', null);
  await grant('30', '2026-06-01T00:00:00Z');
  await grant('5', '2025-12-01T00:00:00Z');
  await meter(use('prepaid', '2026-01-03T00:00:00Z', 50));
  await close();
  const [first] = await listStatements(database.pool, {
    tenantIds: [tenantId],
    subscription: id,
    status: null,
    before: null,
    limit: 9,
  });
  expect(first?.head).toMatchObject({
    total: '50.00',
    amount_due: '0.00',
    credits: [{ amount: '30.00' }, { amount: '20.00' }],
  });
  const left = async () => (await loadGrants(database.pool, [tenantId])).map((one) => one.left.toFixed());
  expect(await left()).toEqual(['5', '0', '80']);
  await voidStatement(deps(), first?.serial ?? 0, { reason: 'test', reissue: false });
  expect(await left()).toEqual(['5', '30', '100']);
});

test('a trial costs nothing, and fixed amounts begin when it ends', async () => {
  now = Date.parse('2026-02-02T00:00:00Z');
  const { id } = await subscribe(database.pool, 'trying', 'small', '2026-01-01T00:00:00Z', {
    trialUntil: Date.parse('2026-01-16T12:00:00Z'),
  });
  await meter(use('trying', '2026-01-05T00:00:00Z', 10), use('trying', '2026-01-20T00:00:00Z', 4));
  const closed = (await close()).closed;
  const [head] = (await Promise.all(closed.map(statement)))
    .map((one) => one.head)
    .filter((one) => one.subscription === id);
  expect(head).toMatchObject({ total: '19.50', terms: [{ trial: true }, { trial: false }] });
});

test('lines are exported each once, with ids that never change, whatever was closed meanwhile', async () => {
  const seen = new Set<string>();
  let after = { serial: 0, line: 0 };
  for (;;) {
    const page = await exportLines(database.pool, { tenantIds: null, after, limit: 3 });
    for (const line of page) {
      expect(seen.has(line.id)).toBe(false);
      seen.add(line.id);
    }
    const last = page.at(-1);
    if (last === undefined) break;
    after = { serial: serialOf(last.statement) ?? 0, line: last.line };
  }
  const { rows } = await database.pool.query<{ n: number }>('SELECT count(*)::int AS n FROM statement_lines');
  expect(seen.size).toBe(rows[0]?.n);
});

test('a subscription whose meter is gone does not hold up the others', async () => {
  now = Date.parse('2026-02-02T00:00:00Z');
  const broken = await subscribe(database.pool, 'broken', 'tokens', '2026-01-01T00:00:00Z');
  const whole = await subscribe(database.pool, 'whole', 'simple', '2026-01-01T00:00:00Z');
  const without = {
    ...deps(),
    findMeter: async (slug: string) => (slug === 'api_calls' ? undefined : deps().findMeter(slug)),
  };
  const result = await closePeriods(without, now);
  expect(result.failed).toMatchObject([{ subscription: broken.id, error: expect.stringContaining('unknown_meter') }]);
  const closed = await Promise.all(result.closed.map(statement));
  expect(closed.map((one) => one.head.subscription)).toContain(whole.id);
});
