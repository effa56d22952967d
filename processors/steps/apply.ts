import { LIMITS } from '../../schemas/index.ts';
import { BinaryCopy } from '../../sinks/index.ts';
import type { EventView } from '../event-view.ts';
import type { RawEventWriter } from '../raw-events.ts';
import type { Rollups } from '../rollups/rollups.ts';
import type { Tenants } from '../tenants.ts';
import { type Fault, type Identified, isVoid, offsetAt, promote } from './identify.ts';

/** Another producer's clock may say anything. */
const TIMES = LIMITS.times;
const DAY = 86_400_000;
/** Events between two breaths: the sockets of other partitions' commits want the event loop too. */
const BREATH = 2_000;

export interface Applied {
  /** starts of the days that raw rows fall into, Unix ms */
  days: Set<number>;
  /** latest event time, Unix ms, or -Infinity */
  watermark: number;
  accepted: number;
  /** of each sound record: 1 when it was applied */
  applied: Uint8Array;
}

/** Step 3: every newly claimed event becomes a raw row and is added to the rollups in memory. */
export function createApplyStep(deps: { view: EventView; raw: RawEventWriter; tenants: Tenants; shard: number }) {
  const { view, raw, tenants, shard } = deps;
  const trial = new BinaryCopy(1 << 10);

  return { apply, examine };

  /** Why a record can't be applied; undefined: it can. Its view is open afterwards. */
  function examine(found: Identified, i: number, s: number): Fault | undefined {
    trial.reset();
    return check(found, i) ?? store(found, i, s, trial);
  }

  async function apply(
    found: Identified,
    claimed: Uint8Array,
    rollups: Rollups,
    copy: BinaryCopy,
    batch: number,
    /** of sound records: 1 when it stands in the raw events but is not counted */
    uncounted: Uint8Array | null,
  ): Promise<Applied> {
    copy.reset();
    const { sound, soundCount } = found;
    const result: Applied = {
      days: new Set(),
      watermark: Number.NEGATIVE_INFINITY,
      accepted: 0,
      applied: new Uint8Array(soundCount),
    };
    let day = Number.NaN;
    for (let s = 0; s < soundCount; s++) {
      if (s % BREATH === BREATH - 1) await new Promise(setImmediate);
      if (claimed[s] !== 1) continue;
      const i = sound[s] as number;
      const fault = check(found, i) ?? store(found, i, s, copy);
      if (fault !== undefined) {
        found.faults.set(i, fault);
        promote(found, claimed, s);
        continue;
      }
      if (uncounted?.[s] !== 1 && !(found.mayVoid && isVoid(view))) count(found, i, s, rollups, batch);
      result.applied[s] = 1;
      result.accepted++;
      if (view.timestamp > result.watermark) result.watermark = view.timestamp;
      const itsDay = view.timestamp - (view.timestamp % DAY);
      if (itsDay !== day) {
        day = itsDay;
        result.days.add(day);
      }
    }
    return result;
  }

  function check(found: Identified, i: number): Fault | undefined {
    const { slice } = found;
    if (tenants.get(found.tenants[i] as number) === undefined)
      return { reason: 'unknown_tenant', detail: `tenant ${tenants.name(found.tenants[i] as number)}` };
    const from = i === 0 ? 0 : (slice.ends[i - 1] as number);
    if (!view.open(slice.bytes, from, slice.ends[i] as number) || !view.decode())
      return { reason: view.fault, detail: view.faultDetail };
    if (!(view.timestamp >= TIMES.from && view.timestamp < TIMES.to))
      return { reason: 'invalid_timestamp', detail: `timestamp ${view.timestamp} ms is outside 1970 to 2200` };
    if (!(view.receivedAt >= TIMES.from && view.receivedAt < TIMES.to))
      return { reason: 'invalid_timestamp', detail: `received_at ${view.receivedAt} ms is outside 1970 to 2200` };
    return undefined;
  }

  function store(found: Identified, i: number, s: number, copy: BinaryCopy): Fault | undefined {
    const tenant = tenants.get(found.tenants[i] as number);
    if (tenant === undefined) return { reason: 'unknown_tenant', detail: '' };
    const refused = raw.write(copy, view, { offset: offsetAt(found.slice, i), shard }, tenant.id, found.keys, s * 16);
    return refused === undefined ? undefined : { reason: refused, detail: 'NUL or invalid UTF-8 in a string' };
  }

  function count(found: Identified, i: number, s: number, rollups: Rollups, batch: number): void {
    const tenant = tenants.get(found.tenants[i] as number);
    if (tenant !== undefined) rollups.observe(view, tenant, found.keys, s * 16, batch);
  }
}
