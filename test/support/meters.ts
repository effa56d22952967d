import type { Pool } from 'pg';
import { BUILTIN_METERS, type DefinitionInput, readDefinition, type WindowSize } from '../../metering/index.ts';
import { type ArchivedEvents, type BackfillDeps, createBackfillJob } from '../../processors/index.ts';
import { createMeter } from '../../query-api/meters/definitions.ts';
import type { MeterQuery } from '../../query-api/meters/meter-query.ts';
import { runMeterQuery } from '../../query-api/meters/run-query.ts';
import type { Job, Meter } from '../../schemas/index.ts';
import { detectEngine, openMeterCatalogue } from '../../sinks/index.ts';

/** Defines a meter as the route does. */
export async function defineMeter(
  pool: Pool,
  slug: string,
  input: DefinitionInput,
  tenantId: string | null = null,
): Promise<Meter> {
  const definition = readDefinition(input);
  await createMeter(pool, { slug, tenantId, name: slug, description: '', metadata: null, definition });
  return meterOf(pool, slug);
}

/** The version of a meter that answers now. */
export async function meterOf(pool: Pool, slug: string): Promise<Meter> {
  const entry = await openMeterCatalogue(pool, BUILTIN_METERS).find(slug);
  if (entry === undefined) throw new Error(`no meter ${slug}`);
  return entry.meter;
}

/** A meter's query over [from, to) in UTC (Unix ms), everybody in one, but for what `more` says. */
export const plainQuery = (
  meter: Meter,
  [from, to]: readonly [number, number],
  more: Partial<MeterQuery> = {},
): MeterQuery => ({
  meter,
  tenantIds: null,
  from,
  to,
  windowSize: undefined,
  windowTimeZone: 'UTC',
  bySubject: false,
  groupBy: [],
  filters: new Map(),
  quantile: 0.95,
  fillEmpty: false,
  ...more,
});

/** The rows of a meter's answer by subject and every group, and over all. */
export async function answersOf(
  pool: Pool,
  meter: Meter,
  range: readonly [number, number],
  windowSize: WindowSize | undefined,
): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const groups of [{ bySubject: true, groupBy: meter.groupBy }, {}]) {
    const { rows } = await runMeterQuery(pool, plainQuery(meter, range, { windowSize, ...groups }));
    all.push(rows);
  }
  return all;
}

/** Nothing was ever archived. */
export const NO_ARCHIVE: ArchivedEvents = {
  days: async () => [],
  open: async () => undefined,
  versionOf: async () => undefined,
};

/** The job that counts the past of new meters. */
export const backfillJob = async (pool: Pool, log: { topic: string }, more: Partial<BackfillDeps> = {}): Promise<Job> =>
  createBackfillJob({
    pool,
    engine: await detectEngine(pool),
    archive: NO_ARCHIVE,
    topic: log.topic,
    groupsMax: 10_000,
    rowsMax: 10_000,
    ...more,
  });
