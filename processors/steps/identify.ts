import { isUtf8 } from 'node:buffer';
import { hash } from 'node:crypto';
import type { ErrorCode } from '../../schemas/index.ts';
import type { LogSlice } from '../../sinks/index.ts';
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
}

/** The offset of record `i`. */
export function offsetAt(slice: LogSlice, i: number): number {
  return slice.offsets === undefined ? slice.firstOffset + i : (slice.offsets[i] as number);
}

/** Step 1: whose event is each record, and what is its claim key? */
export function createIdentifyStep(deps: { view: EventView; tenants: Tenants; forced: ReadonlyMap<number, Fault> }) {
  const { view, tenants, forced } = deps;
  const scratch = Buffer.allocUnsafe(4096);

  return function identify(slice: LogSlice): Identified {
    const found: Identified = {
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
    if (!writeKey(found)) return { reason: 'field_too_long', detail: 'idempotency_key' };
    found.sound[found.soundCount++] = i;
    return undefined;
  }

  /** SHA-256(tenant, 0x00, key), cut to 128 bits; a CloudEvent's key is source, 0x00, id (no identifier holds a NUL). */
  function writeKey(found: Identified): boolean {
    const { bytes } = view;
    let at = copyBytes(bytes, view.tenantStart, view.tenantEnd, 0);
    scratch[at++] = 0;
    if (view.keyedBySource) {
      if (view.sourceStart >= 0) {
        if (view.sourceEnd - view.sourceStart > 1024) return false;
        at = copyBytes(bytes, view.sourceStart, view.sourceEnd, at);
      }
      scratch[at++] = 0;
    }
    if (view.keyEnd - view.keyStart > 2048) return false;
    at = copyBytes(bytes, view.keyStart, view.keyEnd, at);
    const digest = hash('sha256', scratch.subarray(0, at), 'buffer');
    const keys = found.keys;
    let to = found.soundCount * 16;
    for (let i = 0; i < 16; i++) keys[to++] = digest[i] as number;
    return true;
  }

  function copyBytes(bytes: Uint8Array, start: number, end: number, at: number): number {
    for (let i = start; i < end; i++) scratch[at++] = bytes[i] as number;
    return at;
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
