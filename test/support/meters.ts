import type { Pool } from 'pg';
import { BUILTIN_METERS, type DefinitionInput, readDefinition } from '../../metering/index.ts';
import { createMeter } from '../../query-api/meters/definitions.ts';
import type { Meter } from '../../schemas/index.ts';
import { openMeterCatalogue } from '../../sinks/index.ts';

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
