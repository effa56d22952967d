import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  binOf,
  compareDecimals,
  Decimal,
  decimalFrom,
  ExactSum,
  formatDecimal,
  isoTime,
  parseDecimal,
  quantile,
  SketchSums,
  sketchToText,
  splitHours,
  valueOfBin,
  windowBoundaries,
} from '../../metering/index.ts';

const literal = fc
  .tuple(
    fc.boolean(),
    fc.bigInt({ min: 0n, max: 10n ** 20n - 1n }),
    fc.option(fc.stringMatching(/^\d{1,18}$/), { nil: undefined }),
  )
  .map(
    ([negative, integer, fraction]) =>
      `${negative ? '-' : ''}${integer}${fraction === undefined ? '' : `.${fraction}`}`,
  );

/** Units of 10^-18. */
function unitsOf(text: string): bigint {
  const [integer = '0', fraction = ''] = text.replace('-', '').split('.');
  const units = BigInt(integer) * 10n ** 18n + BigInt(fraction.padEnd(18, '0'));
  return text.startsWith('-') ? -units : units;
}

test('P12: a sum of decimals is exact, in any order', () => {
  fc.assert(
    fc.property(fc.array(literal, { maxLength: 30 }), (literals) => {
      const sum = new ExactSum();
      for (const text of literals) sum.add(decimalFrom(text));
      expect(unitsOf(sum.toString())).toBe(literals.reduce((total, text) => total + unitsOf(text), 0n));
    }),
  );
});

test('P12: a literal read from bytes keeps every digit, and compares as a number', () => {
  fc.assert(
    fc.property(literal, literal, (a, b) => {
      const [left, right] = [new Decimal(), new Decimal()];
      expect(parseDecimal(Buffer.from(`x${a}y`), 1, 1 + a.length, left)).toBe(true);
      expect(parseDecimal(Buffer.from(b), 0, b.length, right)).toBe(true);
      expect(unitsOf(formatDecimal(left.big ?? BigInt(left.unscaled), left.scale))).toBe(unitsOf(a));
      expect(Math.sign(compareDecimals(left, right))).toBe(
        unitsOf(a) < unitsOf(b) ? -1 : unitsOf(a) > unitsOf(b) ? 1 : 0,
      );
    }),
  );
});

test.each([
  '',
  '-',
  '.',
  '1.',
  '.5',
  '1e5',
  '+1',
  '1 ',
  '0x1',
  '123456789012345678901',
  '0.1234567890123456789',
  'NaN',
])('%j is no decimal', (text) => {
  expect(parseDecimal(Buffer.from(text), 0, text.length, new Decimal())).toBe(false);
});

test('P3: a value and the value of its bin differ by 1 % at most', () => {
  fc.assert(
    fc.property(fc.double({ noNaN: true, min: -1e20, max: 1e20 }), (value) => {
      const back = valueOfBin(binOf(value));
      expect(Math.abs(back - value)).toBeLessThanOrEqual(Math.abs(value) * 0.01 + 1e-30);
    }),
  );
});

test('P3: a quantile is within 1 % of the value of that rank', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ noNaN: true, min: 0, max: 1e9 }), { minLength: 1, maxLength: 200 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (values, q) => {
        const counts = new Map<number, number>();
        for (const value of values) counts.set(binOf(value), (counts.get(binOf(value)) ?? 0) + 1);
        const bins = [...counts.keys()].sort((a, b) => a - b);
        const exact = values.toSorted((a, b) => a - b)[Math.floor(q * (values.length - 1))] ?? 0;
        expect(
          Math.abs(
            (quantile(
              bins,
              bins.map((bin) => counts.get(bin) ?? 0),
              q,
            ) ?? Number.NaN) - exact,
          ),
        ).toBeLessThanOrEqual(exact * 0.01 + 1e-30);
      },
    ),
  );
});

test('days follow the zone through its changes: 23, 24 and 25 hours', () => {
  const hours = (from: string, to: string) => {
    const at = windowBoundaries(Date.parse(from), Date.parse(to), 'DAY', 'Europe/Paris', 100) ?? [];
    return at.slice(1).map((end, i) => (end - (at[i] ?? 0)) / 3_600_000);
  };
  expect(hours('2026-03-27T23:00:00Z', '2026-03-30T22:00:00Z')).toEqual([24, 23, 24]);
  expect(hours('2026-10-23T22:00:00Z', '2026-10-26T23:00:00Z')).toEqual([24, 25, 24]);
});

test('windows of zones at :30 and :45 begin inside UTC hours, which are then read from minutes', () => {
  const at =
    windowBoundaries(
      Date.parse('2026-05-01T00:00:00Z'),
      Date.parse('2026-05-03T00:00:00Z'),
      'DAY',
      'Asia/Kathmandu',
      100,
    ) ?? [];
  expect(at.map((ms) => new Date(ms).toISOString().slice(11, 16))).toEqual(['00:00', '18:15', '18:15', '00:00']);
  expect(splitHours(at).map((ms) => new Date(ms).toISOString().slice(11, 16))).toEqual(['18:00', '18:00']);
});

test('windows cover the range without gap or overlap, in any zone', () => {
  const zone = fc.constantFrom(
    'UTC',
    'Europe/Paris',
    'America/New_York',
    'Asia/Kolkata',
    'Australia/Lord_Howe',
    'America/St_Johns',
    'Africa/Casablanca',
  );
  const size = fc.constantFrom('HOUR', 'DAY', 'MONTH', undefined);
  fc.assert(
    fc.property(
      fc.integer({ min: 25_000_000, max: 32_000_000 }),
      fc.integer({ min: 1, max: 100_000 }),
      size,
      zone,
      (start, length, windowSize, name) => {
        const [from, to] = [start * 60_000, (start + length) * 60_000];
        const at = windowBoundaries(from, to, windowSize, name, 10_000) ?? [];
        expect([at[0], at.at(-1)]).toEqual([from, to]);
        for (let i = 1; i < at.length; i++) expect(at[i]).toBeGreaterThan(at[i - 1] ?? 0);
      },
    ),
    { numRuns: 60 },
  );
});

test.each(['America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'Pacific/Chatham'])(
  'hours begin where the clock of %s shows a full one, through its changes',
  (zone) => {
    const clock = new Intl.DateTimeFormat('en', { timeZone: zone, minute: 'numeric' });
    for (const month of [2, 9]) {
      const from = Date.UTC(2026, month, 20, 0, 15);
      const to = from + 35 * 86_400_000;
      const plain = [from];
      for (let at = from + 900_000; at < to; at += 900_000) if (clock.format(at) === '0') plain.push(at);
      expect(windowBoundaries(from, to, 'HOUR', zone, 10_000)).toEqual([...plain, to]);
    }
  },
);

test('sketches as text: read back as they were, and added up as the sketch itself', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.double({ min: -1e12, max: 1e12, noNaN: true }), { maxLength: 60 }), { maxLength: 6 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (parts, q) => {
        const sums = new SketchSums();
        const all = new Map<number, number>();
        for (const values of parts) {
          const bins = new Map<number, number>();
          for (const value of values)
            bins.set(binOf(value), (bins.get(binOf(value)) ?? 0) + 1 + (value > 5 ? 40_000 : 0));
          const sorted = [...bins].sort(([a], [b]) => a - b);
          const text = sketchToText(
            sorted.map(([bin]) => bin),
            sorted.map(([, n]) => n),
            sorted.length,
          );
          const back = new SketchSums();
          back.addText(text);
          expect([...back.entries()]).toEqual(sorted);
          sums.addText(text);
          for (const [bin, n] of sorted) all.set(bin, (all.get(bin) ?? 0) + n);
        }
        const merged = [...all].sort(([a], [b]) => a - b);
        const expected = quantile(
          merged.map(([bin]) => bin),
          merged.map(([, n]) => n),
          q,
        );
        const least = quantile(
          merged.map(([bin]) => bin),
          merged.map(([, n]) => n),
          0,
        );
        expect(sums.quantileBins([0, q, q]).map(valueOfBin)).toEqual([least ?? 0, expected ?? 0, expected ?? 0]);
        sums.clear();
        expect(sums.quantileBins([q]).map(valueOfBin)).toEqual([0]);
      },
    ),
  );
});

test('P13: the days of two centuries are found without asking the zone about each of them', () => {
  const begun = performance.now();
  const at = windowBoundaries(Date.UTC(1760, 0, 1), Date.UTC(2026, 10, 26), 'DAY', 'Asia/Kathmandu', 100_000) ?? [];
  expect(at).toHaveLength(97_486);
  expect(performance.now() - begun).toBeLessThan(3_000);
});

test.each([
  ['a day that begins at one', 'Africa/Cairo', '2026-04-22T22:00Z', '2026-04-25T21:00Z', [24, 23, 24]],
  ['a midnight that comes twice', 'America/Havana', '2026-10-30T04:00Z', '2026-11-03T05:00Z', [24, 24, 25, 24]],
  ['a day that is left out', 'Pacific/Apia', '2011-12-28T10:00Z', '2011-12-31T10:00Z', [24, 24, 24]],
  ['half an hour more', 'Australia/Lord_Howe', '2026-04-03T13:00Z', '2026-04-06T13:30Z', [24, 24.5, 24]],
])('days and months begin once: %s', (_name, zone, from, to, lengths) => {
  const hours = (size: 'DAY' | 'MONTH') => {
    const at = windowBoundaries(Date.parse(from), Date.parse(to), size, zone, 100) ?? [];
    return at.slice(1).map((end, i) => (end - (at[i] ?? 0)) / 3_600_000);
  };
  expect(hours('DAY')).toEqual(lengths);
  expect(hours('MONTH').reduce((a, b) => a + b)).toBe(lengths.reduce((a, b) => a + b));
});

test('P6: a time is a day that the calendar has, with a zone, and one that every part takes', () => {
  expect(isoTime('2026-02-28')).toBe(Date.UTC(2026, 1, 28));
  expect(isoTime('2026-02-28 10:00:00.5+05:45')).toBe(Date.UTC(2026, 1, 28, 4, 15, 0, 500));
  for (const text of [
    '2026-02-30',
    '2026-04-31T00:00:00Z',
    '2026-02-28T10:00:00',
    'Feb 3',
    '0000-06-01',
    '9999-12-31T23:59:59-23:59',
  ])
    expect(isoTime(text)).toBeUndefined();
});
