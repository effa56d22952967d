import { expect, test } from 'vitest';
import { minorUnitOf, previewRating } from '../../billing/index.ts';
import { TidemarkError } from '../../schemas/index.ts';

const rated = (charge: object, usage: unknown = 0, currency = 'USD') =>
  previewRating({ currency, charges: [charge], usage: { m: usage } });
const refusal = (charges: unknown, currency = 'USD', usage: unknown = {}) => {
  try {
    previewRating({ currency, charges, usage });
  } catch (error) {
    if (error instanceof TidemarkError) return { code: error.code, field: error.extensions.field };
    throw error;
  }
  return undefined;
};

test('the order is included, model, discount amount, discount percent, minimum, maximum, rounding', () => {
  const charge = {
    meter: 'm',
    model: 'per_unit',
    unit_amount: '0.333',
    included: '10',
    discount_amount: '1',
    discount_percent: '10',
    minimum: '5',
    maximum: '50',
  };
  const [line] = rated(charge, '110').lines;
  // (110 − 10) × 0.333 = 33.3; − 1 = 32.3; − 10 % = 29.07
  expect(line?.steps).toEqual([
    { rule: 'model', amount: '33.3' },
    { rule: 'discount_amount', given: '1', amount: '32.3' },
    { rule: 'discount_percent', given: '10', amount: '29.07' },
  ]);
  expect(line).toMatchObject({
    quantity: '110',
    included: '10',
    billable: '100',
    unit_amount: '0.333',
    amount: '29.07',
  });
  expect(rated(charge, '12').total).toBe('5.00');
  expect(rated(charge, '10000').total).toBe('50.00');
});

test('a discount does not go below zero, and comes before the minimum', () => {
  const charge = { meter: 'm', model: 'per_unit', unit_amount: '1', discount_amount: '100' };
  expect(rated(charge, 5).total).toBe('0.00');
  expect(rated({ ...charge, minimum: '2.5' }, 5).total).toBe('2.50');
});

test('rounding is half up, at the end only', () => {
  expect(rated({ meter: 'm', model: 'per_unit', unit_amount: '0.005' }, 1).total).toBe('0.01');
  expect(rated({ meter: 'm', model: 'per_unit', unit_amount: '0.0049' }, 1).total).toBe('0.00');
  expect(rated({ meter: 'm', model: 'per_unit', unit_amount: '0.5' }, 1, 'JPY').total).toBe('1');
  expect(rated({ meter: 'm', model: 'per_unit', unit_amount: '0.0005' }, 1, 'KWD').total).toBe('0.001');
  // Each of two lines rounds by itself: 0.005 + 0.005 = 0.02, not 0.01.
  const half = { meter: 'm', model: 'per_unit', unit_amount: '0.005' };
  expect(previewRating({ currency: 'USD', charges: [half, half], usage: { m: 1 } }).total).toBe('0.02');
});

test('zero usage costs the first tier flat amount, the minimum, and nothing else', () => {
  const tiers = [
    { up_to: '10', unit_amount: '1', flat_amount: '3' },
    { up_to: null, unit_amount: '1', flat_amount: '7' },
  ];
  expect(rated({ meter: 'm', model: 'graduated', tiers }).total).toBe('3.00');
  expect(rated({ meter: 'm', model: 'volume', tiers }).total).toBe('3.00');
  expect(rated({ meter: 'm', model: 'package', package_size: 10, package_amount: 4 }).total).toBe('0.00');
  expect(rated({ meter: 'm', model: 'percentage', rate_percent: 3, fixed_amount: 1 }).total).toBe('0.00');
  expect(rated({ meter: 'm', model: 'per_unit', unit_amount: 1, minimum: 20 }).total).toBe('20.00');
  expect(previewRating({ currency: 'USD', charges: [] }).total).toBe('0.00');
});

test('the flat amount of every tier that is reached counts, a bound belongs to its tier', () => {
  const tiers = [
    { up_to: '10', unit_amount: '1', flat_amount: '3' },
    { up_to: null, unit_amount: '1', flat_amount: '7' },
  ];
  expect(rated({ meter: 'm', model: 'graduated', tiers }, 10).total).toBe('13.00');
  expect(rated({ meter: 'm', model: 'graduated', tiers }, '10.5').total).toBe('20.50');
  expect(rated({ meter: 'm', model: 'volume', tiers }, 10).total).toBe('13.00');
  expect(rated({ meter: 'm', model: 'volume', tiers }, 11).total).toBe('18.00');
});

test('P12: no digit is lost: 20 digits by 18 decimals', () => {
  const charge = { meter: 'm', model: 'per_unit', unit_amount: '99999999999999999999.999999999999999999' };
  expect(rated(charge, '99999999999999999999.999999999999999999', 'JPY').lines[0]?.steps[0]?.amount).toBe(
    `${'9'.repeat(37)}800.${'0'.repeat(35)}1`,
  );
});

const tier = (upTo: unknown) => ({ up_to: upTo, unit_amount: 1 });
test.each([
  ['closed', [tier(10)], 'charges[0].tiers[0].up_to'],
  ['unordered', [tier(10), tier(5), tier(null)], 'charges[0].tiers[1].up_to'],
  ['overlapping', [tier(10), tier(10), tier(null)], 'charges[0].tiers[1].up_to'],
  ['open in the middle', [tier(10), tier(null), tier(null)], 'charges[0].tiers[1].up_to'],
  ['beginning at zero', [tier(0), tier(null)], 'charges[0].tiers[0].up_to'],
  ['without a price', [{ up_to: null }], 'charges[0].tiers[0].unit_amount'],
  ['with a gap', [{ from: 5, up_to: null, unit_amount: 1 }], 'charges[0].tiers[0].from'],
  ['none', [], 'charges[0].tiers'],
])('P6: tiers that are %s are refused with their place', (_, tiers, field) => {
  expect(refusal([{ meter: 'm', model: 'graduated', tiers }])).toEqual({ code: 'invalid_charge', field });
});

test.each<[object, string]>([
  [{ model: 'free' }, 'charges[0].model'],
  [{ model: 'per_unit', unit_amount: 1 }, 'charges[0].meter'],
  [{ meter: 'm', model: 'per_unit' }, 'charges[0].unit_amount'],
  [{ meter: 'm', model: 'per_unit', unit_amount: -1 }, 'charges[0].unit_amount'],
  [{ meter: 'm', model: 'per_unit', unit_amount: '1e5' }, 'charges[0].unit_amount'],
  [{ meter: 'm', model: 'per_unit', unit_amount: 1, minimum: 5, maximum: 4 }, 'charges[0].minimum'],
  [{ meter: 'm', model: 'per_unit', unit_amount: 1, discount_percent: 101 }, 'charges[0].discount_percent'],
  [{ meter: 'm', model: 'per_unit', unit_amount: 1, price: 4 }, 'charges[0].price'],
  [{ meter: 'm', model: 'package', package_size: 0, package_amount: 1 }, 'charges[0].package_size'],
  [{ model: 'flat', amount: 1, group_by: ['a'] }, 'charges[0].group_by'],
])('P6: %j is refused with its place', (charge, field) => {
  expect(refusal([charge])).toEqual({ code: 'invalid_charge', field });
});

test('P6: a currency without a minor unit, and negative usage, are errors of their own', () => {
  for (const code of ['XAU', 'XXX', 'usd', 'ABC', ''])
    expect(refusal([], code)).toEqual({ code: 'invalid_currency', field: 'currency' });
  const charges = [{ meter: 'm', model: 'per_unit', unit_amount: 1 }];
  expect(refusal(charges, 'USD', { m: -1 })).toEqual({ code: 'negative_quantity', field: 'usage.m' });
  expect(refusal(charges, 'USD', { m: 'x' })).toEqual({ code: 'invalid_body', field: 'usage.m' });
});

test('minor units are those of ISO 4217, not of cash', () => {
  expect(['JPY', 'USD', 'KWD', 'CLF', 'HUF', 'AFN'].map(minorUnitOf)).toEqual([0, 2, 3, 4, 2, 2]);
});
