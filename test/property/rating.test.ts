import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkCharges, Exact, minorUnitOf, previewRating, rateCharge, show } from '../../billing/index.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
process.stderr.write(`rating: SEED=${seed}\n`);
const check = <T>(property: fc.IRawProperty<T>) => fc.assert(property, { seed });

const decimal = (most: number, places: number) =>
  fc.bigInt({ min: 0n, max: BigInt(most) * 10n ** BigInt(places) }).map((units) => {
    const digits = units.toString().padStart(places + 1, '0');
    return places === 0 ? digits : `${digits.slice(0, -places)}.${digits.slice(-places)}`;
  });
const price = decimal(100, 6);
const quantity = decimal(1_000_000, 4);

const tiers = fc
  .tuple(
    fc.uniqueArray(fc.integer({ min: 1, max: 500_000 }), { maxLength: 5 }),
    fc.array(price, { minLength: 6, maxLength: 6 }),
  )
  .map(([bounds, prices]) => {
    const sorted = bounds.toSorted((a, b) => a - b);
    return [...sorted.map(String), null].map((upTo, i) => ({ up_to: upTo, unit_amount: prices[i] ?? '1' }));
  });
const ordered = (rising: boolean) =>
  tiers.map((list) => {
    const prices = list.map((tier) => new Exact(tier.unit_amount)).sort((a, b) => (rising ? a.cmp(b) : b.cmp(a)));
    return list.map((tier, i) => ({ ...tier, unit_amount: show(prices[i] ?? new Exact(0)) }));
  });

const model = fc.oneof(
  fc.record({ model: fc.constant('per_unit'), unit_amount: price }),
  fc.record({ model: fc.constantFrom('graduated', 'volume'), tiers }),
  fc.record({
    model: fc.constant('package'),
    package_size: fc.integer({ min: 1, max: 1000 }).map(String),
    package_amount: price,
  }),
  fc.record({ model: fc.constant('percentage'), rate_percent: price, fixed_amount: price, free_units: quantity }),
);
const limits = fc.record(
  { included: quantity, discount_amount: price, discount_percent: decimal(100, 2), minimum: price },
  { requiredKeys: [] },
);
const charge = fc.tuple(model, limits).map(([one, more]) => ({ meter: 'm', ...one, ...more }));
const amountOf = (given: unknown, used: string, currency = 'USD') =>
  previewRating({ currency, charges: [given], usage: { m: { quantity: used, events: 3 } } }).total;

test('P12: where prices fall, volume costs at most what graduated does; where they rise, at least that', () => {
  check(
    fc.property(ordered(false), quantity, (falling, used) => {
      const volume = amountOf({ meter: 'm', model: 'volume', tiers: falling }, used);
      const graduated = amountOf({ meter: 'm', model: 'graduated', tiers: falling }, used);
      expect(new Exact(volume).lte(graduated)).toBe(true);
    }),
  );
  check(
    fc.property(ordered(true), quantity, (rising, used) => {
      const volume = amountOf({ meter: 'm', model: 'volume', tiers: rising }, used);
      const graduated = amountOf({ meter: 'm', model: 'graduated', tiers: rising }, used);
      expect(new Exact(volume).gte(graduated)).toBe(true);
    }),
  );
});

test('P12: cutting a usage series into batches in any way changes nothing', () => {
  check(
    fc.property(charge, fc.array(decimal(10_000, 6), { minLength: 1, maxLength: 30 }), (given, series) => {
      const whole = series.reduce((sum, one) => sum.plus(one), new Exact(0));
      // Cut anywhere: batches are added up in another order.
      const batches = [series.filter((_, i) => i % 3 === 0), series.filter((_, i) => i % 3 !== 0).toReversed()];
      const summed = batches.map((batch) => batch.reduce((sum, one) => sum.plus(one), new Exact(0)));
      const again = summed.reduce((sum, one) => sum.plus(one), new Exact(0));
      expect(amountOf(given, show(again))).toBe(amountOf(given, show(whole)));
    }),
  );
});

test('P12: the total is the sum of its lines, each rounded to the minor unit', () => {
  const currency = fc.constantFrom('USD', 'JPY', 'KWD', 'CLF');
  check(
    fc.property(fc.array(charge, { maxLength: 8 }), fc.tuple(quantity, currency), (charges, [used, code]) => {
      const rated = previewRating({ currency: code, charges, usage: { m: used } });
      const sum = rated.lines.reduce((total, line) => total.plus(line.amount), new Exact(0));
      expect(rated.total).toBe(sum.toFixed(minorUnitOf(code)));
      for (const line of rated.lines) expect(line.amount.split('.')[1]?.length ?? 0).toBe(minorUnitOf(code));
    }),
  );
});

test('P12: rating is pure: same input, same bytes, whether numbers or texts were given', () => {
  check(
    fc.property(charge, quantity, (given, used) => {
      const once = JSON.stringify(previewRating({ currency: 'USD', charges: [given], usage: { m: used } }));
      expect(JSON.stringify(previewRating({ currency: 'USD', charges: [given], usage: { m: used } }))).toBe(once);
    }),
  );
});

test('P12: a line explains itself: its tiers add up to the amount of the model', () => {
  check(
    fc.property(tiers, quantity, (list, used) => {
      const [checked] = checkCharges([{ meter: 'm', model: 'graduated', tiers: list }]);
      if (checked === undefined) throw new Error('no charge');
      const line = rateCharge(checked, { quantity: new Exact(used), events: new Exact(1) }, 2);
      const shares = line.tiers ?? [];
      const sum = (of: (share: (typeof shares)[number]) => string) =>
        shares.reduce((total, share) => total.plus(of(share)), new Exact(0));
      expect(
        show(
          sum((share) => share.amount),
          38,
        ),
      ).toBe(line.steps[0]?.amount);
      expect(show(sum((share) => share.quantity))).toBe(show(new Exact(used)));
      for (const share of shares)
        expect(show(new Exact(share.quantity).times(share.unit_amount), 38)).toBe(share.amount);
    }),
  );
});

test('P12: parts of a period never cost more than a minor unit away from the whole', () => {
  check(
    fc.property(price, fc.integer({ min: 1, max: 2_678_399 }), (amount, cut) => {
      const [checked] = checkCharges([{ model: 'flat', amount }]);
      if (checked === undefined) throw new Error('no charge');
      const once = { quantity: new Exact(1), events: new Exact(0) };
      const part = (seconds: number) => rateCharge(checked, once, 2, { seconds, of: 2_678_400 }).amount;
      const sum = new Exact(part(cut)).plus(part(2_678_400 - cut));
      expect(
        sum
          .minus(rateCharge(checked, once, 2).amount)
          .abs()
          .lte('0.01'),
      ).toBe(true);
    }),
  );
});
