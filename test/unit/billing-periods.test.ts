import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Interval, type Period, type PeriodRules, periodAt, periodFrom } from '../../billing/index.ts';

const rules = (start: string, more: Partial<PeriodRules> & { interval?: Interval } = {}): PeriodRules => ({
  start: Date.parse(start),
  end: null,
  timeZone: 'UTC',
  periods: 'anniversary',
  phases: [{ from: Date.parse(start), interval: more.interval ?? 'month' }],
  ...more,
});
function ends(of: PeriodRules, count: number): string[] {
  const found: string[] = [];
  let period: Period | undefined = periodFrom(of, of.start);
  for (; period !== undefined && found.length < count; period = periodFrom(of, period.to))
    found.push(new Date(period.to).toISOString().replace(':00.000Z', 'Z'));
  return found;
}
const hours = (period: Period | undefined) => (period === undefined ? 0 : (period.to - period.from) / 3_600_000);

test('31 January is followed by the last day of February, and by 31 March', () => {
  expect(ends(rules('2026-01-31T00:00:00Z'), 5)).toEqual([
    '2026-02-28T00:00Z',
    '2026-03-31T00:00Z',
    '2026-04-30T00:00Z',
    '2026-05-31T00:00Z',
    '2026-06-30T00:00Z',
  ]);
});

test('a leap day has its anniversaries', () => {
  expect(ends(rules('2028-02-29T00:00:00Z', { interval: 'year' }), 4)).toEqual([
    '2029-02-28T00:00Z',
    '2030-02-28T00:00Z',
    '2031-02-28T00:00Z',
    '2032-02-29T00:00Z',
  ]);
  expect(hours(periodFrom(rules('2028-02-01T00:00:00Z'), Date.UTC(2028, 1, 1)))).toBe(29 * 24);
});

test('quarters and years, from the start or by the calendar', () => {
  expect(ends(rules('2026-11-30T06:30:00Z', { interval: 'quarter' }), 2)).toEqual([
    '2027-02-28T06:30Z',
    '2027-05-30T06:30Z',
  ]);
  expect(ends(rules('2026-11-30T00:00:00Z', { interval: 'quarter', periods: 'calendar' }), 2)).toEqual([
    '2027-01-01T00:00Z',
    '2027-04-01T00:00Z',
  ]);
  expect(ends(rules('2026-11-30T00:00:00Z', { interval: 'year', periods: 'calendar' }), 1)).toEqual([
    '2027-01-01T00:00Z',
  ]);
});

test('a period is as long as the zone says: an hour less in spring, one more in autumn', () => {
  const paris = { timeZone: 'Europe/Paris', periods: 'calendar' as const };
  expect(hours(periodFrom(rules('2026-02-28T23:00:00Z', paris), Date.parse('2026-02-28T23:00:00Z')))).toBe(31 * 24 - 1);
  expect(hours(periodFrom(rules('2026-09-30T22:00:00Z', paris), Date.parse('2026-09-30T22:00:00Z')))).toBe(31 * 24 + 1);
  // 15:00 in Paris before and after the change
  expect(ends(rules('2026-03-10T14:00:00Z', { timeZone: 'Europe/Paris' }), 2)).toEqual([
    '2026-04-10T13:00Z',
    '2026-05-10T13:00Z',
  ]);
});

test('a calendar period that begins in the middle is part of a whole one', () => {
  const period = periodFrom(rules('2026-02-15T00:00:00Z', { periods: 'calendar' }), Date.parse('2026-02-15T00:00:00Z'));
  expect(period).toEqual({
    from: Date.UTC(2026, 1, 15),
    to: Date.UTC(2026, 2, 1),
    wholeFrom: Date.UTC(2026, 1, 1),
    wholeTo: Date.UTC(2026, 2, 1),
  });
});

test('a plan of another interval begins its own periods; the end of the subscription ends the last one', () => {
  const of = rules('2026-01-10T00:00:00Z', {
    end: Date.parse('2027-06-01T00:00:00Z'),
    phases: [
      { from: Date.parse('2026-01-10T00:00:00Z'), interval: 'month' },
      { from: Date.parse('2026-02-20T00:00:00Z'), interval: 'month' },
      { from: Date.parse('2026-03-01T00:00:00Z'), interval: 'year' },
    ],
  });
  expect(ends(of, 9)).toEqual(['2026-02-10T00:00Z', '2026-03-01T00:00Z', '2027-03-01T00:00Z', '2027-06-01T00:00Z']);
});

test('periods follow each other without gap or overlap, and the one that holds a time is found', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  const zone = fc.constantFrom(
    'UTC',
    'Europe/Paris',
    'America/New_York',
    'Asia/Kathmandu',
    'Australia/Lord_Howe',
    'America/St_Johns',
  );
  fc.assert(
    fc.property(
      fc.integer({ min: Date.UTC(2020, 0, 1) / 60_000, max: Date.UTC(2030, 0, 1) / 60_000 }),
      fc.constantFrom<Interval>('month', 'quarter', 'year'),
      fc.constantFrom<PeriodRules['periods']>('calendar', 'anniversary'),
      zone,
      (minute, interval, periods, timeZone) => {
        const start = minute * 60_000;
        const of = { start, end: null, timeZone, periods, phases: [{ from: start, interval }] };
        let at = start;
        for (let i = 0; i < 30; i++) {
          const period = periodFrom(of, at);
          if (period === undefined) throw new Error('no period');
          expect(period.from).toBe(at);
          expect(period.to).toBeGreaterThan(at);
          expect(period.wholeFrom).toBeLessThanOrEqual(at);
          expect(period.to).toBe(period.wholeTo);
          expect(periodAt(of, period.to - 1, start)).toEqual(period);
          at = period.to;
        }
      },
    ),
    { seed, numRuns: 20 },
  );
});
