import { Type } from 'typebox';
import type { Job } from '../schemas/index.ts';
import { TidemarkError } from '../schemas/index.ts';
import { type CloseDeps, closePeriods } from './statements/close.ts';
import { deliverDue } from './webhooks/deliver.ts';

export const CLOSE_JOB = 'close_statements';

/** Closes what has ended, every minute. @param graceMs how long after its end a period stays open for late events */
export function closeJob(deps: CloseDeps, graceMs: number): Job {
  return {
    name: CLOSE_JOB,
    schedule: '* * * * *',
    params: Type.Object({
      ended_before: Type.Optional(Type.String({ description: 'ISO 8601; default: now less the grace time' })),
    }),
    async run({ params, signal, progress }) {
      const wanted = params.ended_before === undefined ? deps.now() - graceMs : Date.parse(String(params.ended_before));
      if (Number.isNaN(wanted)) throw new TidemarkError('invalid_parameter', 'ended_before must be ISO 8601');
      const { closed, failed } = await closePeriods(deps, wanted, {
        signal,
        onBatch: (statements) => progress({ statements }),
      });
      // What was announced goes out now; what fails is tried again by its own job.
      if (closed.length > 0) await deliverDue(deps.pool, deps.now, signal);
      return { statements: closed.length, first: closed[0] ?? null, last: closed.at(-1) ?? null, failed };
    },
  };
}
