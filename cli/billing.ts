/** Billing, put together: what it reads meters and raw events with, and its jobs. */
import type { Pool } from 'pg';
import { budgetJob, closeJob, deliverJob, toRawEvent } from '../billing/index.ts';
import type { BillingOptions } from '../query-api/index.ts';
import { type Job, type MeterCatalogue, type Settings, TidemarkError } from '../schemas/index.ts';
import { readMeterUsage } from '../sinks/index.ts';
import { type ArchiveReader, readRawEvents } from '../tiering/index.ts';

const HOUR_MS = 3_600_000;

export function createBilling({
  pool,
  archive,
  catalogue,
  settings,
}: {
  pool: Pool;
  archive: ArchiveReader;
  catalogue: MeterCatalogue;
  settings: Settings;
}): { options: BillingOptions; jobs: Job[] } {
  const options: BillingOptions = {
    async findMeter(slug, tenantId) {
      const entry = await catalogue.find(slug);
      if (entry === undefined || (entry.meter.tenantId !== undefined && entry.meter.tenantId !== tenantId))
        return undefined;
      if (!entry.complete)
        throw new TidemarkError('meter_incomplete', `the backfill of ${slug} runs: its totals are not whole yet`);
      return entry.meter;
    },
    readUsage: readMeterUsage,
    async *readRawEvents(query) {
      for await (const rows of readRawEvents(pool, archive, query)) for (const row of rows) yield toRawEvent(row);
    },
    adjustWithinMs: settings.BILLING_ADJUST_DAYS * 24 * HOUR_MS,
    graceMs: settings.BILLING_GRACE_HOURS * HOUR_MS,
  };
  const deps = { ...options, pool, now: Date.now };
  return { options, jobs: [closeJob(deps, options.graceMs), deliverJob(pool, Date.now), budgetJob(deps)] };
}
