/**
 * The event on the log: Avro single-object encoding (marker C3 01, CRC-64-AVRO fingerprint, body) of
 * `event.v1.avsc`. This is the plain codec for tests, imports and dead letters; ingest writes and processors read
 * the same bytes without building objects. A test holds all of them against avsc.
 */
import { readFileSync } from 'node:fs';
import avsc from 'avsc';
import { type AttributeValue, KIND, type PlainEvent } from '../event.ts';
import { AvroCursor, writeLong } from './primitives.ts';

export const EVENT_SCHEMA_V1: avsc.Schema = JSON.parse(
  readFileSync(new URL('./event.v1.avsc', import.meta.url), 'utf8'),
);

/** CRC-64-AVRO of a schema's canonical form, little-endian, as single-object encoding wants it. */
export function fingerprintOf(schema: avsc.Schema): Buffer {
  const canonical = JSON.stringify(avsc.Type.forSchema(schema).schema());
  const EMPTY = 0xc15d213aa4d7a795n;
  let crc = EMPTY;
  for (const byte of Buffer.from(canonical)) {
    let entry = (crc ^ BigInt(byte)) & 0xffn;
    for (let i = 0; i < 8; i++) entry = (entry >> 1n) ^ (EMPTY & -(entry & 1n));
    crc = BigInt.asUintN(64, (crc >> 8n) ^ entry);
  }
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(crc);
  return out;
}

/** The ten bytes that begin every record: marker and fingerprint of version 1. */
export const HEADER_V1: Buffer = Buffer.concat([Buffer.from([0xc3, 0x01]), fingerprintOf(EVENT_SCHEMA_V1)]);

/** Whether a record begins with version 1's header. */
export function isVersion1(bytes: Uint8Array, from: number, to: number): boolean {
  if (to - from < 10) return false;
  for (let i = 0; i < 10; i++) if (bytes[from + i] !== HEADER_V1[i]) return false;
  return true;
}

/** Encodes one event. */
export function encodeEvent(event: PlainEvent): Buffer {
  const text = [
    event.tenant,
    event.idempotency_key,
    event.source,
    event.type,
    event.user_id,
    event.request_id,
    event.data,
  ];
  let size = 128;
  for (const part of text) size += part === null ? 1 : Buffer.byteLength(part) + 10;
  for (const [name, { value }] of event.attributes)
    size += Buffer.byteLength(name) + Buffer.byteLength(String(value)) + 24;
  const out = Buffer.allocUnsafe(size);
  let at = HEADER_V1.copy(out, 0);
  const string = (value: string) => {
    at = writeLong(out, at, Buffer.byteLength(value));
    at += out.write(value, at, 'utf8');
  };
  const optional = (value: string | null) => {
    out[at++] = value === null ? 0 : 2;
    if (value !== null) string(value);
  };
  string(event.tenant);
  string(event.idempotency_key);
  optional(event.source);
  out[at++] = event.keyed_by_source ? 1 : 0;
  string(event.type);
  at = writeLong(out, at, event.timestamp);
  at = writeLong(out, at, event.received_at);
  optional(event.user_id);
  optional(event.request_id);
  if (event.attributes.size > 0) at = writeLong(out, at, event.attributes.size);
  for (const [name, attribute] of event.attributes) {
    string(name);
    out[at++] = KIND[attribute.kind] * 2;
    if (attribute.kind === 'boolean') out[at++] = attribute.value ? 1 : 0;
    else if (attribute.kind === 'long') at = writeLong(out, at, attribute.value);
    else string(attribute.value);
  }
  out[at++] = 0;
  optional(event.data);
  return out.subarray(0, at);
}

/**
 * Decodes one record of version 1.
 * @returns undefined when it is not one, or is damaged
 */
export function decodeEvent(bytes: Uint8Array, from = 0, to: number = bytes.length): PlainEvent | undefined {
  if (!isVersion1(bytes, from, to)) return undefined;
  const cursor = new AvroCursor();
  cursor.reset(bytes, from + 10, to);
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const string = () => {
    const start = cursor.string();
    return cursor.fail ? '' : view.toString('utf8', start, cursor.at);
  };
  const optional = () => {
    const branch = cursor.byte();
    if (branch !== 0 && branch !== 2) cursor.fail = true;
    return branch === 2 ? string() : null;
  };
  const event: PlainEvent = {
    tenant: string(),
    idempotency_key: string(),
    source: optional(),
    keyed_by_source: cursor.byte() === 1,
    type: string(),
    timestamp: cursor.long(),
    received_at: cursor.long(),
    user_id: optional(),
    request_id: optional(),
    attributes: new Map(),
    data: null,
  };
  for (let left = cursor.long(); left !== 0 && !cursor.fail; left = cursor.long()) {
    if (left < 0) {
      left = -left;
      cursor.long();
    }
    for (; left > 0 && !cursor.fail; left--) event.attributes.set(string(), attribute(cursor, string));
  }
  event.data = optional();
  return cursor.fail || cursor.at !== to ? undefined : event;
}

function attribute(cursor: AvroCursor, string: () => string): AttributeValue {
  switch (cursor.byte()) {
    case KIND.string * 2:
      return { kind: 'string', value: string() };
    case KIND.long * 2:
      return { kind: 'long', value: cursor.long() };
    case KIND.decimal * 2:
      return { kind: 'decimal', value: string() };
    case KIND.boolean * 2:
      return { kind: 'boolean', value: cursor.byte() === 1 };
    default:
      cursor.fail = true;
      return { kind: 'boolean', value: false };
  }
}
