import type { Pool } from 'pg';
import { type Meter, TidemarkError } from '../../schemas/index.ts';
import { runMeterQuery } from './run-query.ts';

interface Range {
  from: number | undefined;
  to: number | undefined;
}

const MINUTE = 60_000;

/** A question without windows, of whole minutes. */
const over = (meter: Meter, tenantIds: readonly string[] | null, { from, to }: Range) => ({
  // Whatever the meter measures: a row tells that there was something.
  meter: meter.aggregation === 'UNIQUE_COUNT' ? meter : { ...meter, aggregation: 'COUNT' as const },
  tenantIds,
  from: from === undefined ? undefined : Math.floor(from / MINUTE) * MINUTE,
  to: to === undefined ? undefined : Math.ceil(to / MINUTE) * MINUTE,
  windowSize: undefined,
  windowTimeZone: 'UTC',
  filters: new Map<string, readonly string[]>(),
  quantile: 0.95,
  fillEmpty: false,
});

/** Subjects with data of a meter in a range, ascending by bytes. */
export async function listSubjects(
  pool: Pool,
  meter: Meter,
  tenantIds: readonly string[] | null,
  range: Range,
): Promise<string[]> {
  const { rows } = await runMeterQuery(pool, { ...over(meter, tenantIds, range), bySubject: true, groupBy: [] });
  return rows.map((row) => row.key[0] ?? '');
}

/** Values of one group-by with data in a range, ascending by bytes. @throws TidemarkError `unknown_group` */
export async function listGroupValues(
  pool: Pool,
  meter: Meter,
  name: string,
  tenantIds: readonly string[] | null,
  range: Range,
): Promise<string[]> {
  if (name === 'subject') return listSubjects(pool, meter, tenantIds, range);
  if (!meter.groupBy.includes(name))
    throw new TidemarkError(
      'unknown_group',
      `${meter.slug} has no group-by "${name}"; it has ${['subject', ...meter.groupBy].join(', ')}`,
    );
  const { rows } = await runMeterQuery(pool, { ...over(meter, tenantIds, range), bySubject: false, groupBy: [name] });
  return rows.flatMap((row) => (row.key[0] === null || row.key[0] === undefined ? [] : [row.key[0]]));
}
