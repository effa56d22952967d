import { isUtf8 } from 'node:buffer';
import { type ErrorCode, REPLACES, VOID_TYPE } from '../../schemas/index.ts';
import type { LogSlice } from '../../sinks/index.ts';
import { ClaimKeys } from '../claim-key.ts';
import type { EventView } from '../event-view.ts';
import type { Tenants } from '../tenants.ts';

export interface Fault {
  reason: ErrorCode;
  detail: string;
}

/** What is known of a slice's records before anything is decided about them. */
export interface Identified {
  slice: LogSlice;
  /** owner's tenant index of each record; -1 where it can't be read */
  tenants: Int32Array;
  /** records without a fault so far */
  sound: Int32Array;
  soundCount: number;
  /** claim keys of the sound records, 16 bytes each, in their order */
  keys: Buffer;
  /** by record index */
  faults: Map<number, Fault>;
  /** some record may be a void */
  mayVoid: boolean;
  /** some record may replace an event */
  mayReplace: boolean;
}

const VOID_BYTES = Buffer.from(VOID_TYPE);
/** The attribute's name behind its Avro length. */
const REPLACES_BYTES = Buffer.concat([Buffer.from([REPLACES.length * 2]), Buffer.from(REPLACES)]);

/** Whether the record whose head is in `view` voids the event of its key. */
export function isVoid(view: EventView): boolean {
  const { bytes, typeStart, typeEnd } = view;
  if (typeEnd - typeStart !== VOID_BYTES.length) return false;
  for (let i = 0; i < VOID_BYTES.length; i++) if (bytes[typeStart + i] !== VOID_BYTES[i]) return false;
  return true;
}

/** The offset of record `i`. */
export function offsetAt(slice: LogSlice, i: number): number {
  return slice.offsets === undefined ? slice.firstOffset + i : (slice.offsets[i] as number);
}

/** A record that is refused has claimed nothing: the next one of its key in the batch is the first. */
export function promote(found: Identified, claimed: Uint8Array, refused: number): void {
  const { keys } = found;
  const key = keys.subarray(refused * 16, refused * 16 + 16);
  for (let s = refused + 1; s < found.soundCount; s++)
    if (keys.compare(key, 0, 16, s * 16, s * 16 + 16) === 0) {
      claimed[s] = 1;
      return;
    }
}

/** Step 1: whose event is each record, and what is its claim key? */
export function createIdentifyStep(deps: { view: EventView; tenants: Tenants; forced: ReadonlyMap<number, Fault> }) {
  const { view, tenants, forced } = deps;
  const claimKeys = new ClaimKeys();

  return function identify(slice: LogSlice): Identified {
    // One search of all bytes: what withdraws events is rare.
    const all = Buffer.from(slice.bytes.buffer, slice.bytes.byteOffset, slice.bytes.length);
    const found: Identified = {
      mayVoid: all.includes(VOID_BYTES),
      mayReplace: all.includes(REPLACES_BYTES),
      slice,
      tenants: new Int32Array(slice.count).fill(-1),
      sound: new Int32Array(slice.count),
      soundCount: 0,
      keys: Buffer.allocUnsafe(slice.count * 16),
      faults: new Map(),
    };
    let from = 0;
    for (let i = 0; i < slice.count; i++) {
      const to = slice.ends[i] as number;
      const fault = identifyRecord(found, i, from, to);
      if (fault !== undefined) found.faults.set(i, fault);
      from = to;
    }
    return found;
  };

  function identifyRecord(found: Identified, i: number, from: number, to: number): Fault | undefined {
    const { slice } = found;
    if (!view.open(slice.bytes, from, to)) return { reason: view.fault, detail: view.faultDetail };
    const { tenantStart, tenantEnd } = view;
    if (!isPlain(slice.bytes, tenantStart, tenantEnd) || tenantEnd - tenantStart > 512)
      return { reason: 'invalid_character', detail: 'tenant' };
    found.tenants[i] = tenants.indexOf(slice.bytes, tenantStart, tenantEnd);
    if (forced.size > 0) {
      const known = forced.get(offsetAt(slice, i));
      if (known !== undefined) return known;
    }
    const key = found.mayVoid && isVoid(view) ? claimKeys.ofVoid(view) : claimKeys.ofEvent(view);
    if (key === undefined) return { reason: 'field_too_long', detail: 'idempotency_key' };
    writeKey(found, key);
    found.sound[found.soundCount++] = i;
    return undefined;
  }

  function writeKey(found: Identified, key: Uint8Array): void {
    const { keys } = found;
    let to = found.soundCount * 16;
    for (let i = 0; i < 16; i++) keys[to++] = key[i] as number;
  }
}

function isPlain(bytes: Uint8Array, start: number, end: number): boolean {
  let high = 0;
  for (let i = start; i < end; i++) {
    const byte = bytes[i] as number;
    high |= byte;
    if (byte < 32 || byte === 127) return false;
  }
  return high < 0x80 || isUtf8(bytes.subarray(start, end));
}
