import type { Pool } from 'pg';
import { BUILTIN_METERS, type DefinitionInput, readDefinition, type WindowSize } from '../../metering/index.ts';
import { type ArchivedEvents, type BackfillDeps, createBackfillJob } from '../../processors/index.ts';
import { createMeter } from '../../query-api/meters/definitions.ts';
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

/** The rows of a meter's answer over a range, and those by subject and every group. Unix ms. */
export async function answersOf(
  pool: Pool,
  meter: Meter,
  [from, to]: readonly [number, number],
  windowSize: WindowSize | undefined,
): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const grouped of [true, false]) {
    const { rows } = await runMeterQuery(pool, {
      meter,
      tenantIds: null,
      from,
      to,
      windowSize,
      windowTimeZone: 'UTC',
      bySubject: grouped,
      groupBy: grouped ? meter.groupBy : [],
      filters: new Map(),
      quantile: 0.95,
      fillEmpty: false,
    });
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
