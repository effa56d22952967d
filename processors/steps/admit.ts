import type { Tenants } from '../tenants.ts';
import type { Identified } from './identify.ts';

/** Step 2: records of tenants that don't exist (and are not to be created) become dead letters; the rest goes on. */
export function createAdmitStep(deps: { tenants: Tenants }) {
  const { tenants } = deps;

  return async function admit(found: Identified): Promise<void> {
    await tenants.resolve();
    let kept = 0;
    for (let s = 0; s < found.soundCount; s++) {
      const i = found.sound[s] as number;
      const tenant = found.tenants[i] as number;
      if (tenants.get(tenant) === undefined) {
        found.faults.set(i, { reason: 'unknown_tenant', detail: `tenant ${tenants.name(tenant)}` });
        continue;
      }
      if (kept !== s) {
        found.sound[kept] = i;
        found.keys.copyWithin(kept * 16, s * 16, s * 16 + 16);
      }
      kept++;
    }
    found.soundCount = kept;
  };
}
