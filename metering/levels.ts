import { isLevel, type Meter } from '../schemas/index.ts';

/**
 * Levels of the coarse rollups (`schemas/sql/0030_rollups_coarse.sql`): which of day, tenant and group a row tells apart.
 * A query reads the coarsest level that still tells apart what it asks for.
 */
export const LEVEL = { byTenant: 1, byGroup: 2, byDay: 4, merged: 8 } as const;
/** Levels that a shard writes. Those that don't tell tenants apart are added up over all shards: `+ LEVEL.merged`. */
export const LEVELS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7];

/** The shard of rows that are added up over all shards. */
export const ALL_SHARDS = -1;

/** The smallest id that stands for all tenants, or for all groups. */
export const NIL_UUID = '00000000-0000-0000-0000-000000000000';

/** What a level tells apart, for people (`explain=true`). */
export function levelName(level: number): string {
  const by = [...(level & LEVEL.byTenant ? ['tenant'] : []), ...(level & LEVEL.byGroup ? ['group'] : [])];
  return `${level & LEVEL.byDay ? 'days' : 'hours'}${by.length === 0 ? ' of all tenants' : ` by ${by.join(' and ')}`}${level & LEVEL.merged ? ', partitions added up' : ''}`;
}

/**
 * Whether a meter has coarse rows of this level. Distinct values have tables of their own, and levels that last until
 * they change (PEAK, TIME_WEIGHTED_AVG) don't add up. Without a groupBy there is
 * nothing to add up over groups. By hour, tenant and group the hour rows are the answer already, but for their sketches,
 * which coarse rows hold in a form that costs a fifth to read.
 */
export function hasLevel(meter: Meter, level: number): boolean {
  if (meter.aggregation === 'UNIQUE_COUNT' || isLevel(meter.aggregation)) return false;
  const grouped = meter.groupBy.length > 0;
  if (!grouped && level & LEVEL.byGroup) return false;
  const finest = grouped ? LEVEL.byTenant | LEVEL.byGroup : LEVEL.byTenant;
  return level !== finest || meter.aggregation === 'PERCENTILE';
}
