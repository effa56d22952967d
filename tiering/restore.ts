import { TidemarkError } from '../schemas/index.ts';
import { isFrozen, type RestoreSpeed } from '../sinks/index.ts';
import { daysWithFiles } from './archive/day-state.ts';
import type { Day } from './layout.ts';
import { type ArchivedDay, listDays } from './list.ts';
import type { TieringDeps } from './ports.ts';

/** How long a restored copy stays, and how fast it comes. */
export interface RestoreOptions {
  days: number;
  speed: RestoreSpeed;
}

/**
 * Asks for readable copies of a day's files. Asking again changes nothing.
 * @returns the day as it is then @throws TidemarkError `not_found`
 */
export async function restoreDay(
  deps: Pick<TieringDeps, 'pool' | 'store'>,
  day: Day,
  options: RestoreOptions,
): Promise<ArchivedDay> {
  const [row] = await daysWithFiles(deps.pool, day, day);
  if (row?.current === undefined) throw new TidemarkError('not_found', `${day} is not in the archive`);
  for (const { key } of row.current.manifest.files) {
    const object = await deps.store.head(key);
    if (object !== undefined && isFrozen(object)) await deps.store.restore(key, options);
  }
  const [listed] = await listDays(deps, { from: day, to: day });
  if (listed === undefined) throw new TidemarkError('not_found', `${day} is not in the archive`);
  return listed;
}

/** What a question that reaches frozen days is answered. */
export const frozenDays = (days: readonly Day[]): TidemarkError =>
  new TidemarkError(
    'archive_frozen',
    `these days are in a cold storage class: ${days.join(', ')}. POST /api/v1/archives/${days[0]}/restore asks for a copy`,
    { extensions: { days, restore: days.map((day) => `/api/v1/archives/${day}/restore`) } },
  );
