import { ACTOR, CORRECTION_REASON, EVENT_AT, REASON, REPLACES } from '../../schemas/index.ts';
import { ClaimKeys } from '../claim-key.ts';
import type { EventView } from '../event-view.ts';
import { readDimension } from '../rollups/compile.ts';
import { type Fault, type Identified, isVoid, offsetAt } from '../steps/identify.ts';
import type { Tenants } from '../tenants.ts';
import type { Withdrawal } from './withdrawal.ts';

/** What withdrawals are read from: the owner's view needs slots for them. */
export const WITHDRAWAL_ATTRIBUTES: readonly string[] = [REPLACES, ACTOR, REASON, EVENT_AT, CORRECTION_REASON];

/** Finds the newly claimed records that withdraw an event. @param examine why a record can't be applied at all */
export function createCollect(deps: {
  view: EventView;
  tenants: Tenants;
  examine(found: Identified, i: number, sound: number): Fault | undefined;
}) {
  const { view, tenants, examine } = deps;
  const claimKeys = new ClaimKeys();
  const slot = (name: string) => view.names.slotOf(name);
  const replacesSlot = slot(REPLACES);
  const actorSlot = slot(ACTOR);
  const reasonSlot = slot(REASON);
  const correctionSlot = slot(CORRECTION_REASON);
  const eventAtSlot = slot(EVENT_AT);

  /** By index of the sound record, duplicates included: one may stand in for a refused first. */
  return function collect(found: Identified): Map<number, Withdrawal> {
    const withdrawals = new Map<number, Withdrawal>();
    if (!found.mayVoid && !found.mayReplace) return withdrawals;
    const { slice } = found;
    for (let s = 0; s < found.soundCount; s++) {
      const i = found.sound[s] as number;
      if (!view.open(slice.bytes, i === 0 ? 0 : (slice.ends[i - 1] as number), slice.ends[i] as number)) continue;
      const voids = isVoid(view);
      if (!voids && !found.mayReplace) continue;
      // What is wrong with a record is found again, and said, when it is applied.
      if (!view.decode()) continue;
      const replaced = voids ? null : readDimension(view, replacesSlot);
      if ((!voids && replaced === null) || examine(found, i, s) !== undefined) continue;
      const withdrawal = read(found, i, s, replaced);
      if (withdrawal !== undefined) withdrawals.set(s, withdrawal);
    }
    return withdrawals;
  };

  function read(found: Identified, i: number, s: number, replaced: string | null): Withdrawal | undefined {
    const tenant = tenants.get(found.tenants[i] as number);
    if (tenant === undefined) return undefined;
    const text = Buffer.from(view.bytes.buffer, view.bytes.byteOffset, view.bytes.byteLength);
    const other = replaced === null ? undefined : Buffer.from(replaced);
    const target = other === undefined ? claimKeys.ofEvent(view) : claimKeys.ofOther(view, other, 0, other.length);
    const by = found.keys.subarray(s * 16, s * 16 + 16);
    if (target === undefined) return undefined;
    return {
      sound: s,
      offset: offsetAt(found.slice, i),
      action: replaced === null ? 'void' : 'replace',
      tenant,
      target: target.slice(),
      by,
      idempotencyKey: replaced ?? text.toString('utf8', view.keyStart, view.keyEnd),
      source: view.sourceStart < 0 ? null : text.toString('utf8', view.sourceStart, view.sourceEnd),
      actor: readDimension(view, actorSlot),
      reason: readDimension(view, replaced === null ? reasonSlot : correctionSlot),
      hint: hintOf(readDimension(view, eventAtSlot)),
      eventAt: null,
    };
  }
}

function hintOf(text: string | null): number | null {
  const at = Number(text ?? Number.NaN);
  return Number.isSafeInteger(at) ? at : null;
}
