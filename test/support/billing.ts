import type { Pool } from 'pg';
import {
  type CloseDeps,
  createPlan,
  createSubscription,
  type NewSubscription,
  type Subscription,
  toRawEvent,
} from '../../billing/index.ts';
import { BUILTIN_METERS } from '../../metering/index.ts';
import { readMeterUsage } from '../../sinks/index.ts';
import { type ArchiveReader, readRawEvents } from '../../tiering/index.ts';

export const DAY = 86_400_000;

/** For tests whose events are all in the database. */
const NO_ARCHIVE: ArchiveReader = {
  days: async () => [],
  search: async () => [],
  async *scan(_query, days) {
    if (days.length > 0) throw new Error('this test has no archive');
    yield [];
  },
  close: async () => undefined,
};

/** What billing needs on a test's database, at a time that the test sets. */
export function billingOn(pool: Pool, now: () => number, archive: ArchiveReader = NO_ARCHIVE) {
  const findMeter = async (slug: string) => BUILTIN_METERS.find((meter) => meter.slug === slug);
  return {
    pool,
    now,
    findMeter,
    readUsage: readMeterUsage,
    async *readRawEvents(query: Parameters<CloseDeps['readRawEvents']>[0]) {
      for await (const rows of readRawEvents(pool, archive, query)) for (const row of rows) yield toRawEvent(row);
    },
    adjustWithinMs: 45 * DAY,
  } satisfies CloseDeps;
}

export const makePlan = (
  pool: Pool,
  key: string,
  charges: unknown,
  more: { currency?: string; interval?: string } = {},
) =>
  createPlan(pool, async (slug) => BUILTIN_METERS.find((meter) => meter.slug === slug), {
    key,
    name: `Plan ${key}`,
    currency: 'USD',
    interval: 'month',
    charges,
    ...more,
  });

/** A subscription of a tenant that is made where there is none. */
export async function subscribe(
  pool: Pool,
  customerId: string,
  plan: string,
  start: string,
  more: Partial<NewSubscription> = {},
): Promise<Subscription> {
  const { rows } = await pool.query<{ id: string }>(
    `INSERT INTO tenants (customer_id, name, tier, status) VALUES ($1, $1, 'standard', 'ready')
     ON CONFLICT (customer_id) DO UPDATE SET name = excluded.name RETURNING id`,
    [customerId],
  );
  return createSubscription(pool, {
    tenantId: rows[0]?.id ?? '',
    plan,
    start: Date.parse(start),
    end: null,
    trialUntil: null,
    timeZone: 'UTC',
    periods: 'anniversary',
    ...more,
  });
}
