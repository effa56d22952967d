import { readFileSync } from 'node:fs';
import { AGGREGATIONS, type Meter } from '../schemas/index.ts';

/** The meters that every tenant has: one data file, no code. */
export const BUILTIN_METERS: readonly Meter[] = readMeters(
  JSON.parse(readFileSync(new URL('./builtin-meters.json', import.meta.url), 'utf8')),
);

function readMeters(data: unknown): Meter[] {
  if (!Array.isArray(data)) throw new Error('builtin-meters.json must hold an array');
  const meters: Meter[] = data;
  const ids = new Set(meters.map((meter) => meter.id));
  if (ids.size !== meters.length) throw new Error('builtin-meters.json repeats an id');
  for (const meter of meters) {
    if (!AGGREGATIONS.includes(meter.aggregation))
      throw new Error(`meter ${meter.slug}: unknown aggregation ${meter.aggregation}`);
    if ((meter.aggregation === 'COUNT') !== (meter.valueProperty === undefined))
      throw new Error(`meter ${meter.slug}: ${meter.aggregation} and valueProperty don't fit`);
  }
  return meters;
}
