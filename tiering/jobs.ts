import { Type } from 'typebox';
import { type Job, TidemarkError } from '../schemas/index.ts';
import { runArchive } from './archive/run.ts';
import { type Day, isDay } from './layout.ts';
import { eraseEvents } from './operations/erase.ts';
import { forgetPurged } from './operations/forget-purged.ts';
import type { TieringDeps } from './ports.ts';
import { recallDay } from './recall/recall.ts';
import { verifyArchive } from './verify.ts';

/** A day of a request. @throws TidemarkError `invalid_parameter` */
export function requireDay(name: string, value: unknown): string {
  if (typeof value !== 'string' || !isDay(value))
    throw new TidemarkError('invalid_parameter', `${name} must be a day as YYYY-MM-DD, not ${JSON.stringify(value)}`);
  return value;
}

/** An optional first and last day. */
export function requireRange({ from, to }: Record<string, unknown>): { from?: Day; to?: Day } {
  return {
    ...(from === undefined ? {} : { from: requireDay('from', from) }),
    ...(to === undefined ? {} : { to: requireDay('to', to) }),
  };
}

const Range = { from: Type.Optional(Type.String()), to: Type.Optional(Type.String()) };

/** Everything of tiering that runs by schedule or by request. */
export function createTieringJobs(deps: TieringDeps): Job[] {
  return [
    {
      name: 'archive',
      schedule: '17 2 * * *',
      params: Type.Object({ before: Type.Optional(Type.String()) }),
      run: async (context) => {
        const { before } = context.params;
        const result = await runArchive(deps, context, before === undefined ? undefined : requireDay('before', before));
        const left = Object.entries(result.left);
        if (left.length > 0)
          throw new Error(
            `${result.archived.length} days archived; still in the database: ${left.map(([day, why]) => `${day}: ${why}`).join('; ')}`,
          );
        return result;
      },
    },
    {
      name: 'archive_verify',
      params: Type.Object(Range),
      run: async (context) => {
        const result = await verifyArchive(deps, context, requireRange(context.params));
        if (result.damaged.length > 0)
          throw new TidemarkError('archive_damaged', `${result.damaged.length} objects: ${result.damaged.join('; ')}`);
        return result;
      },
    },
    {
      name: 'archive_recall',
      params: Type.Object({ day: Type.String(), days: Type.Integer({ minimum: 0, maximum: 365 }) }),
      run: async (context) => {
        const { day, days } = context.params;
        return recallDay(deps, context, requireDay('day', day), Number(days));
      },
    },
    {
      name: 'archive_forget',
      schedule: '7 * * * *',
      params: Type.Object({}),
      run: (context) => forgetPurged(deps, context),
    },
    {
      name: 'archive_erase',
      params: Type.Object({
        tenant_id: Type.String(),
        user_id: Type.Union([Type.String(), Type.Null()]),
        reason: Type.String(),
        by: Type.String(),
      }),
      run: (context) => {
        const { tenant_id, user_id, reason, by } = context.params;
        return eraseEvents(deps, context, {
          tenantId: String(tenant_id),
          userId: typeof user_id === 'string' ? user_id : null,
          reason: String(reason),
          by: String(by),
        });
      },
    },
  ];
}
