import fc from 'fast-check';
import { expect, test } from 'vitest';
import { findAnomalies, isOutlier, type Look } from '../../tenants/index.ts';

const MB = 1 << 20;
const LIMITS = { storageBytes: 10_000 * MB, inactiveDays: 90 };
const NOW = Date.UTC(2026, 10, 25);
const look = (more: Partial<Look> = {}): Look => ({
  at: NOW,
  bytes: 100 * MB,
  slowQueries: 0,
  events: 1_000,
  errors: 10,
  ...more,
});
/** A day that grows by one MB from look to look, with a little noise in everything. */
const DAY = Array.from({ length: 100 }, (_, i) =>
  look({ at: NOW - (100 - i) * 300_000, bytes: i * MB + (i % 3) * 100_000, slowQueries: i % 2, errors: 10 + (i % 5) }),
);
const active = { lastEvent: NOW - 60_000, since: NOW - 400 * 86_400_000 };
const kinds = (one: Partial<Look>, history: readonly Look[] = DAY, activity = active) =>
  findAnomalies(look(one), history, activity, LIMITS).map((finding) => finding.kind);

test('a usual look has no finding', () => {
  expect(kinds({})).toEqual([]);
});

test.each([
  ['growth', { bytes: 400 * MB }],
  ['storage', { bytes: 20_000 * MB }],
  ['slow_queries', { slowQueries: 9 }],
  ['error_rate', { errors: 400 }],
])('%s is told from the tenant’s own history', (kind, one) => {
  expect(kinds(one)).toContain(kind);
});

test('what is unusual elsewhere is usual where it always was so', () => {
  const failing = DAY.map((one) => ({ ...one, errors: 400 + (one.errors % 7) }));
  expect(kinds({ errors: 402 }, failing)).toEqual([]);
});

test('a handful of errors, and a first look, are no anomaly', () => {
  expect(kinds({ events: 9, errors: 9 })).toEqual([]);
  expect(kinds({ errors: 900, slowQueries: 50 }, DAY.slice(0, 3))).toEqual([]);
});

test('a tenant without events is proposed for archival', () => {
  expect(kinds({}, DAY, { ...active, lastEvent: NOW - 91 * 86_400_000 })).toEqual(['inactive']);
});

test('an outlier is never below what was seen, and scale does not matter', () => {
  const history = fc.array(fc.integer({ min: 0, max: 1_000 }), { minLength: 6, maxLength: 50 });
  const seed = Date.now() & 0x7fffffff;
  fc.assert(
    fc.property(history, fc.integer({ min: 0, max: 5_000 }), fc.constantFrom(2, 4, 8), (values, value, factor) => {
      const sorted = values.toSorted((a, b) => a - b);
      if (isOutlier(value, values)) expect(value).toBeGreaterThan(sorted[Math.floor(sorted.length / 2) - 1] ?? 0);
      const scaled = values.map((one) => one * factor);
      expect(isOutlier(value * factor, scaled)).toBe(isOutlier(value, values));
    }),
    { seed, verbose: true },
  );
});
