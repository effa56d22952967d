import { Type } from 'typebox';
import type { Job } from '../../schemas/index.ts';
import { DAY } from '../rollups/rollups.ts';
import { type VerifyDeps, verifyRollups } from './verify.ts';

/** Recounts whole days from raw events and compares; with `repair` it mends. A run that was ended starts over: it changes nothing twice. */
export function createVerifyJob(deps: VerifyDeps): Job {
  return {
    name: 'rollups_verify',
    params: Type.Object({
      from: Type.String({ description: 'first day, YYYY-MM-DD, UTC' }),
      to: Type.String({ description: 'last day' }),
      meter: Type.Optional(Type.String()),
      tenant_id: Type.Optional(Type.String()),
      repair: Type.Optional(Type.Boolean()),
      by: Type.String(),
    }),
    run: async (context) => {
      const { from, to, meter, tenant_id: tenantId, repair, by } = context.params;
      const result = await verifyRollups(
        deps,
        {
          from: Date.parse(`${from}T00:00:00Z`),
          to: Date.parse(`${to}T00:00:00Z`) + DAY,
          meter: typeof meter === 'string' ? meter : undefined,
          tenantId: typeof tenantId === 'string' ? tenantId : undefined,
          ...(repair === true ? { repair: { by: String(by), run: context.id } } : {}),
        },
        context,
      );
      return { ...result };
    },
  };
}
