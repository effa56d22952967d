import { hash } from 'node:crypto';
import { VOIDED } from '../schemas/index.ts';
import type { EventView } from './event-view.ts';

const NUL = Buffer.from([0]);
const OF_VOID = Buffer.from(VOIDED);

/** Longest source, and longest key, in bytes; more is refused. */
const MOST_SOURCE = 1024;
const MOST_KEY = 2048;

/**
 * Makes claim keys: SHA-256(tenant, 0x00, key), cut to 128 bits; a CloudEvent's key is source, 0x00, id (no identifier
 * holds a NUL). `claimKeyOf` in schemas is the same for plain values. What is returned is valid until the next call.
 */
export class ClaimKeys {
  readonly #scratch = Buffer.allocUnsafe(4096);
  readonly #key = new Uint8Array(16);

  /** The key of the event whose head is in `view`. @returns undefined where a part is too long */
  ofEvent(view: EventView): Uint8Array | undefined {
    return this.#digest(view, view.bytes, view.keyStart, view.keyEnd, undefined);
  }

  /** The key of a void itself: its head names the event that it voids. */
  ofVoid(view: EventView): Uint8Array | undefined {
    return this.#digest(view, view.bytes, view.keyStart, view.keyEnd, OF_VOID);
  }

  /** The key of another event of the same tenant and source. @param bytes its idempotency key, in [start, end) */
  ofOther(view: EventView, bytes: Uint8Array, start: number, end: number): Uint8Array | undefined {
    return this.#digest(view, bytes, start, end, undefined);
  }

  #digest(
    view: EventView,
    key: Uint8Array,
    start: number,
    end: number,
    suffix: Uint8Array | undefined,
  ): Uint8Array | undefined {
    let at = this.#copy(view.bytes, view.tenantStart, view.tenantEnd, 0);
    at = this.#copy(NUL, 0, 1, at);
    if (view.keyedBySource) {
      if (view.sourceStart >= 0) {
        if (view.sourceEnd - view.sourceStart > MOST_SOURCE) return undefined;
        at = this.#copy(view.bytes, view.sourceStart, view.sourceEnd, at);
      }
      at = this.#copy(NUL, 0, 1, at);
    }
    if (end - start > MOST_KEY) return undefined;
    at = this.#copy(key, start, end, at);
    if (suffix !== undefined) at = this.#copy(suffix, 0, suffix.length, at);
    // As a string: a Buffer for each event, which V8 allocates outside of its heap, takes three times as long.
    const digest = hash('sha256', this.#scratch.subarray(0, at), 'binary');
    for (let i = 0; i < 16; i++) this.#key[i] = digest.charCodeAt(i);
    return this.#key;
  }

  #copy(bytes: Uint8Array, start: number, end: number, at: number): number {
    const scratch = this.#scratch;
    for (let i = start; i < end; i++) scratch[at++] = bytes[i] as number;
    return at;
  }
}
