import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  billedPeriod,
  canonicalJson,
  checkCharges,
  checksumOf,
  Exact,
  periodFrom,
  RatedLines,
  rateBilled,
  rulesOf,
  type Subscription,
  statementText,
} from '../../billing/index.ts';

const start = Date.UTC(2026, 0, 1);
const subscription: Subscription = {
  id: 's',
  tenantId: 't',
  customerId: 'c',
  start,
  end: null,
  trialUntil: null,
  timeZone: 'UTC',
  periods: 'anniversary',
  phases: [
    {
      from: start,
      plan: {
        key: 'p',
        version: 1,
        name: 'p',
        currency: 'USD',
        interval: 'month',
        createdAt: new Date(0),
        charges: checkCharges([
          {
            meter: 'tokens',
            group_by: ['model'],
            model: 'per_unit',
            unit_amount: '0.005',
          },
        ]),
      },
    },
  ],
  closedUntil: start,
};

test('P8, P12: a statement of 1,000,000 lines is rated, added up and hashed', { timeout: 180_000 }, () => {
  const count = 1_000_000;
  const rows = Array.from({ length: count }, (_, i) => ({
    customerId: 'c',
    group: { model: `m${i}` },
    quantity: String(i / 2),
    events: '0',
  }));
  const period = periodFrom(rulesOf(subscription), start);
  if (period === undefined) throw new Error('no period');
  const lines = new RatedLines();
  for (const line of rateBilled(billedPeriod(subscription, period), () => rows, 2)) lines.add(line);
  expect(lines.texts).toHaveLength(count);
  // Σ of 0.005 × i/2, each rounded half up: a quarter of a cent times i.
  let cents = 0;
  for (let i = 0; i < count; i++) cents += Math.floor((i + 2) / 4);
  expect(lines.total.times(100).toFixed()).toBe(String(cents));
  expect(checksumOf('{}', lines.texts)).toMatch(/^[0-9a-f]{64}$/);
});

test('P8: canonical JSON is the same whatever the order of members, and parses to the same', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  const json = fc.jsonValue({ maxDepth: 4 });
  fc.assert(
    fc.property(json, (value) => {
      const shuffled: unknown = JSON.parse(JSON.stringify(value), (_key, one: unknown) =>
        typeof one === 'object' && one !== null && !Array.isArray(one)
          ? Object.fromEntries(Object.entries(one).reverse())
          : one,
      );
      expect(canonicalJson(shuffled)).toBe(canonicalJson(JSON.parse(JSON.stringify(value))));
      expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
    }),
    { seed },
  );
});

test('P8: the text of a statement in pieces is its canonical JSON', () => {
  const head = { number: 'S-1', total: '1', amount_due: '1', zebra: [1, { b: 1, a: 2 }] };
  const lines = [
    { line: 1, amount: '1' },
    { line: 2, amount: '0' },
  ];
  const text = [...statementText(canonicalJson(head), lines.map(canonicalJson))].join('');
  expect(text).toBe(canonicalJson({ ...head, lines }));
  expect([...statementText(canonicalJson(head), [])].join('')).toBe(canonicalJson({ ...head, lines: [] }));
  expect(new Exact('1').toFixed()).toBe('1');
});
