import { Type } from 'typebox';
import { type Job, TidemarkError } from '../schemas/index.ts';
import { runArchive } from './archive/run.ts';
import { isDay } from './layout.ts';
import type { TieringDeps } from './ports.ts';

/** A day of a request. @throws TidemarkError `invalid_parameter` */
export function requireDay(name: string, value: unknown): string {
  if (typeof value !== 'string' || !isDay(value))
    throw new TidemarkError('invalid_parameter', `${name} must be a day as YYYY-MM-DD, not ${JSON.stringify(value)}`);
  return value;
}

/** Everything of tiering that runs by schedule or by request. */
export function createTieringJobs(deps: TieringDeps): Job[] {
  return [
    {
      name: 'archive',
      schedule: '17 2 * * *',
      params: Type.Object({ before: Type.Optional(Type.String()) }),
      run: async (context) => {
        const { before } = context.params;
        return runArchive(deps, context, before === undefined ? undefined : requireDay('before', before));
      },
    },
  ];
}
