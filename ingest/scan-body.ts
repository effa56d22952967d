/** A request's body → records for the log, and what was rejected. Pure but for the tenant cache and the rate limits. */
import { isUtf8 } from 'node:buffer';
import {
  ACTOR,
  type ErrorCode,
  KIND,
  LIMITS,
  type Principal,
  type Rate,
  REPLACES,
  RESERVED_TYPE,
  type Rejection,
  type Tenant,
  TidemarkError,
  type Tier,
} from '../schemas/index.ts';
import type { RecordBatch } from '../sinks/index.ts';
import { EventScan, FIELD } from './event-scan.ts';
import { CHAR, JsonScanner, MalformedJson } from './json-scanner.ts';
import { partitionOf } from './partitioner.ts';
import { type PlacedTenant, Placement } from './placement.ts';
import type { RateLimits } from './rate-limit.ts';
import { type Envelope, type Range, RecordWriter } from './record-writer.ts';
import { parseTimestamp } from './timestamps.ts';

export interface IngestSettings {
  /** older events are `too_old` */
  maxAgeMs: number;
  /** events further ahead are `too_new` */
  maxAheadMs: number;
  unknownTenants: 'create' | 'reject';
  rates: Record<Tier, Rate | null>;
  appendDeadlineMs: number;
  /** records waiting on the log beyond which nothing is accepted */
  lagLimit: number;
  /** customer_id → partitions that it is spread over */
  spread: ReadonlyMap<string, number>;
}

export type BodyForm = 'cloudevents' | 'log' | 'ndjson';

export interface ScanContext {
  form: BodyForm;
  principal: Principal;
  settings: IngestSettings;
  partitions: number;
  limits: RateLimits;
  /** Unix ms */
  now: number;
  /** lifts `too_old` */
  backfill: boolean;
  /** what this process knows of a customer_id; null: known not to exist, undefined: not asked yet */
  tenant(customerId: string): Tenant | null | undefined;
  /**
   * Partition of a correction, by its claim key: it is where the event that it replaces is. Asked for events that
   * corrections of spread tenants replace; null: that is no correction, undefined: not asked yet.
   */
  placed(claimKey: string): number | null | undefined;
}

export interface ScannedBody {
  batches: RecordBatch[];
  accepted: number;
  rejected: Rejection[];
  /** customer_ids to be asked for; if there are any, nothing else here counts: scan again */
  unknown: Set<string>;
  /** claim keys whose place is to be asked for; likewise */
  unplaced: Set<string>;
  /** corrections of spread tenants: claim key → partition */
  corrections: Map<string, number>;
  /** rate tokens taken, by tenant id: to be given back if nothing is appended */
  taken: Map<string, number>;
}

/** A customer_id of this body. */
interface TenantSlot extends PlacedTenant {
  /** why its events are rejected */
  refusal: { code: ErrorCode; field: string; detail: string } | null;
  rate: { tenantId: string; rate: Rate } | null;
}

const API_CALL: Range = { bytes: Buffer.from('api_call'), start: 0, end: 8 };
const NONE: Range = { bytes: Buffer.alloc(0), start: -1, end: 0 };
/** A tenant in one of these states sends nothing. */
const CLOSED = { suspended: 'tenant_suspended', deleted: 'tenant_deleted', archived: 'tenant_archived' } as const;

/**
 * Scans a whole body.
 * @throws TidemarkError `invalid_json` (where the rest can't be trusted), `body_too_large` (too many events)
 */
export function scanBody(body: Buffer, context: ScanContext): ScannedBody {
  return new BodyScan(body, context).run();
}

class BodyScan {
  readonly #context: ScanContext;
  readonly #scanner: JsonScanner;
  readonly #scan: EventScan;
  readonly #writers: (RecordWriter | undefined)[] = [];
  readonly #slots = new Map<string, TenantSlot>();
  readonly #valid: boolean;
  readonly #placement: Placement;
  readonly #result: ScannedBody;
  #index = 0;
  /** key of the event that the current one replaces */
  #replaced: Range | undefined;
  /** the last event's tenant: the next one's is mostly the same */
  #last: TenantSlot | undefined;

  constructor(body: Buffer, context: ScanContext) {
    this.#context = context;
    this.#placement = new Placement(context);
    this.#result = {
      batches: [],
      accepted: 0,
      rejected: [],
      unknown: new Set(),
      taken: new Map(),
      unplaced: this.#placement.unplaced,
      corrections: this.#placement.corrections,
    };
    this.#scanner = new JsonScanner(body);
    this.#scan = new EventScan(this.#scanner);
    this.#valid = isUtf8(body);
  }

  run(): ScannedBody {
    if (this.#context.form === 'ndjson') this.#lines();
    else this.#document();
    for (const writer of this.#writers)
      if (writer !== undefined && writer.count > 0) this.#result.batches.push(writer.batch());
    return this.#result;
  }

  /** One event, or an array of events. */
  #document(): void {
    const scanner = this.#scanner;
    try {
      const first = scanner.peek();
      if (first === -1) return;
      if (first !== CHAR.openArray) this.#event();
      else {
        scanner.at++;
        if (scanner.peek() === CHAR.closeArray) scanner.at++;
        else {
          for (let more = true; more; ) {
            this.#event();
            const next = scanner.peek();
            if (next !== CHAR.comma && next !== CHAR.closeArray) scanner.fail('expected "," or "]"');
            scanner.at++;
            more = next === CHAR.comma;
          }
        }
      }
      if (scanner.peek() !== -1) scanner.fail('something follows the end');
    } catch (error) {
      if (!(error instanceof MalformedJson)) throw error;
      throw new TidemarkError('invalid_json', `event ${this.#index}, byte ${error.at}: ${error.message}`, {
        extensions: { index: this.#index, byte: error.at },
      });
    }
  }

  /** An event a line; a malformed line is rejected alone. */
  #lines(): void {
    const scanner = this.#scanner;
    const { bytes: body, end } = scanner;
    let from = 0;
    while (from < end) {
      const newline = body.indexOf(10, from);
      const to = newline < 0 || newline > end ? end : newline;
      if (!isBlank(body, from, to)) this.#line(from, to);
      from = to + 1;
    }
  }

  #line(from: number, to: number): void {
    const scanner = this.#scanner;
    scanner.at = from;
    try {
      this.#event(to);
    } catch (error) {
      if (!(error instanceof MalformedJson)) throw error;
      this.#reject('invalid_json', '', `byte ${error.at - from} of the line: ${error.message}`);
    }
  }

  /** @param lineEnd the event must end here */
  #event(lineEnd = -1): void {
    if (this.#index >= LIMITS.batchEvents)
      throw new TidemarkError('body_too_large', `more than ${LIMITS.batchEvents} events`);
    const scan = this.#scan;
    const scanner = this.#scanner;
    scan.scan(this.#context.form === 'cloudevents' ? 'cloudevent' : 'log');
    if (lineEnd >= 0 && (scanner.at > lineEnd || !isBlank(scanner.bytes, scanner.at, lineEnd)))
      scanner.fail('the line is no single JSON object');
    if (!this.#valid && !isUtf8(scanner.bytes.subarray(scan.from, scan.to)))
      scan.refuse('invalid_character', '', 'invalid UTF-8');
    const envelope = scan.code === null ? this.#envelope() : undefined;
    if (scan.code !== null) {
      this.#reject(scan.code, scan.field, scan.detail);
      return;
    }
    if (envelope !== undefined) this.#accept(envelope.envelope, envelope.slot);
    this.#index++;
  }

  #reject(code: ErrorCode, field: string, detail: string): void {
    this.#result.rejected.push({ index: this.#index++, code, ...(field === '' ? {} : { field }), detail });
  }

  #accept(envelope: Envelope, slot: TenantSlot): void {
    const partition = this.#placement.of(envelope, this.#replaced, slot);
    if (partition === undefined) return;
    let writer = this.#writers[partition];
    if (writer === undefined) {
      writer = new RecordWriter(partition);
      this.#writers[partition] = writer;
    }
    writer.write(envelope, this.#scan, this.#scanner.bytes);
    this.#result.accepted++;
  }

  /** Resolves and checks the envelope; undefined when the event is rejected (see the scan), or its tenant must be asked for. */
  #envelope(): { envelope: Envelope; slot: TenantSlot } | undefined {
    const { form, now, settings, backfill } = this.#context;
    const cloud = form === 'cloudevents';
    const scan = this.#scan;
    if (cloud && !this.#isCloudEvent()) return undefined;
    const key = this.#identifier(
      cloud ? FIELD.id : FIELD.idempotency_key,
      cloud ? 'id' : 'idempotency_key',
      cloud ? LIMITS.cloudEventPart : LIMITS.idempotencyKey,
    );
    const request = this.#identifier(FIELD.request_id, 'request_id', LIMITS.identifier);
    const user = this.#identifier(FIELD.user_id, 'user_id', LIMITS.identifier);
    const source = this.#identifier(FIELD.source, 'source', LIMITS.identifier);
    const type = this.#identifier(FIELD.type, 'type', LIMITS.type);
    if (scan.code !== null) return undefined;
    const itsKey = key.start < 0 && !cloud ? request : key;
    if (itsKey.start < 0)
      scan.refuse(
        'missing_field',
        cloud ? 'id' : 'idempotency_key',
        cloud ? 'required' : 'idempotency_key or request_id is required',
      );
    if (cloud && source.start < 0) scan.refuse('missing_field', 'source', 'required');
    if (cloud && type.start < 0) scan.refuse('missing_field', 'type', 'required');
    const timestamp = this.#timestamp(cloud ? FIELD.time : FIELD.timestamp, cloud ? 'time' : 'timestamp', cloud);
    if (scan.code !== null) return undefined;
    if (timestamp < now - settings.maxAgeMs && !backfill)
      scan.refuse('too_old', cloud ? 'time' : 'timestamp', `older than ${settings.maxAgeMs / 86_400_000} days`);
    if (timestamp > now + settings.maxAheadMs)
      scan.refuse('too_new', cloud ? 'time' : 'timestamp', `more than ${settings.maxAheadMs / 1000} s ahead`);
    if (type.start >= 0 && this.#isReserved(type))
      scan.refuse('invalid_field', 'type', `must not begin with ${RESERVED_TYPE}`);
    this.#replaced = this.#correction(cloud);
    if (scan.code !== null) return undefined;
    const slot = this.#tenant(cloud);
    if (slot === undefined) return undefined;
    const envelope: Envelope = {
      tenant: slot,
      key: itsKey,
      source,
      keyedBySource: cloud,
      type: type.start < 0 ? API_CALL : type,
      timestamp,
      receivedAt: now,
      user,
      request,
    };
    return { envelope, slot };
  }

  #isReserved({ bytes, start, end }: Range): boolean {
    if (end - start < RESERVED_TYPE.length || bytes[start] !== RESERVED_TYPE.charCodeAt(0)) return false;
    return this.#scanner.text(start, start + RESERVED_TYPE.length) === RESERVED_TYPE;
  }

  /** The key of the event that this one replaces, if it does; who sends it is noted. */
  #correction(cloud: boolean): Range | undefined {
    const scan = this.#scan;
    const at = scan.find(REPLACES);
    if (at < 0) return undefined;
    const range = {
      bytes: this.#scanner.bytes,
      start: scan.valueStarts[at] as number,
      end: scan.valueEnds[at] as number,
    };
    const most = cloud ? LIMITS.cloudEventPart : LIMITS.idempotencyKey;
    if (scan.kinds[at] !== KIND.string || range.end === range.start || range.end - range.start > most) {
      scan.refuse('invalid_field', REPLACES, `must be the idempotency key of an event, at most ${most} bytes`);
      return undefined;
    }
    scan.setText(ACTOR, this.#context.principal.keyId);
    return range;
  }

  #isCloudEvent(): boolean {
    const scan = this.#scan;
    const version = this.#text(FIELD.specversion);
    if (version === undefined) scan.refuse('missing_field', 'specversion', 'required');
    else if (version !== '1.0') scan.refuse('invalid_field', 'specversion', 'must be "1.0"');
    const contentType = this.#text(FIELD.datacontenttype);
    if (contentType !== undefined && !/^[\w.-]+\/(?:[\w.-]+\+)?json\s*(?:;.*)?$/i.test(contentType))
      scan.refuse('invalid_field', 'datacontenttype', 'must be JSON');
    return scan.code === null;
  }

  #text(field: number): string | undefined {
    const start = this.#scan.starts[field] as number;
    return start < 0 ? undefined : this.#scanner.text(start, this.#scan.ends[field] as number);
  }

  /** An identifier: no control characters, not empty, not too long; absent where null. */
  #identifier(field: number, name: string, most: number): Range {
    const start = this.#scan.starts[field] as number;
    if (start < 0) return NONE;
    const end = this.#scan.ends[field] as number;
    const { bytes } = this.#scanner;
    if (end === start) this.#scan.refuse('invalid_field', name, 'must not be empty');
    if (end - start > most) this.#scan.refuse('field_too_long', name, `at most ${most} bytes`);
    for (let i = start; i < end; i++) {
      const byte = bytes[i] as number;
      if (byte < 32 || byte === 127) this.#scan.refuse('invalid_character', name, 'control character');
    }
    return { bytes, start, end };
  }

  #timestamp(field: number, name: string, optional: boolean): number {
    const start = this.#scan.starts[field] as number;
    if (start < 0) {
      if (!optional) this.#scan.refuse('missing_field', name, 'required');
      return this.#context.now;
    }
    const time = parseTimestamp(this.#scanner.bytes, start, this.#scan.ends[field] as number);
    if (Number.isNaN(time)) this.#scan.refuse('invalid_timestamp', name, 'must be ISO 8601 with a zone');
    return time;
  }

  /** Whose event it is; checks the key's tenant, the tenant's state and its rate. */
  #tenant(cloud: boolean): TenantSlot | undefined {
    const { principal, limits, now } = this.#context;
    const scan = this.#scan;
    const named = this.#identifier(FIELD.customer_id, 'customer_id', LIMITS.tenant);
    const subject = cloud ? this.#identifier(FIELD.subject, 'subject', LIMITS.identifier) : NONE;
    if (scan.code !== null) return undefined;
    let slot: TenantSlot;
    if (principal.tenant !== null) {
      const own = principal.tenant.customerId;
      for (const [range, field] of [
        [named, 'customer_id'],
        [subject, 'subject'],
      ] as const)
        if (range.start >= 0 && this.#scanner.text(range.start, range.end) !== own) {
          scan.refuse('wrong_tenant', field, 'the key belongs to another tenant');
          return undefined;
        }
      slot = this.#last ?? this.#slot(own, principal.tenant);
    } else {
      const range = named.start >= 0 ? named : subject;
      if (range.start < 0) {
        scan.refuse('missing_field', cloud ? 'subject' : 'customer_id', 'whose usage is it?');
        return undefined;
      }
      if (range.end - range.start > LIMITS.tenant) {
        scan.refuse('field_too_long', 'subject', `at most ${LIMITS.tenant} bytes`);
        return undefined;
      }
      const known = this.#last !== undefined && sameBytes(this.#last, range) ? this.#last : this.#slotOf(range);
      if (known === undefined) return undefined;
      slot = known;
      if (named.start >= 0 && subject.start >= 0 && !sameBytes(named, subject))
        scan.addText('subject', subject.start, subject.end);
    }
    this.#last = slot;
    if (slot.refusal !== null) {
      scan.refuse(slot.refusal.code, slot.refusal.field, slot.refusal.detail);
      return undefined;
    }
    if (slot.rate !== null && this.#result.unknown.size === 0) {
      if (!limits.take(slot.rate.tenantId, slot.rate.rate, now)) {
        scan.refuse('rate_limited', '', `more than ${slot.rate.rate.perSecond} events a second`);
        return undefined;
      }
      this.#result.taken.set(slot.rate.tenantId, (this.#result.taken.get(slot.rate.tenantId) ?? 0) + 1);
    }
    return slot;
  }

  #slotOf(range: Range): TenantSlot | undefined {
    const name = this.#scanner.text(range.start, range.end);
    const known = this.#slots.get(name);
    if (known !== undefined) return known;
    const tenant = this.#context.tenant(name);
    if (tenant === undefined) {
      this.#result.unknown.add(name);
      return undefined;
    }
    return this.#slot(name, tenant);
  }

  #slot(name: string, tenant: Tenant | null): TenantSlot {
    const { partitions, settings, limits } = this.#context;
    const bytes = Buffer.from(name);
    const rate = tenant === null ? null : limits.rateOf(tenant.tier);
    let refusal: TenantSlot['refusal'] = null;
    if (tenant === null && settings.unknownTenants === 'reject')
      refusal = { code: 'unknown_tenant', field: 'customer_id', detail: 'there is no such tenant' };
    else if (
      tenant !== null &&
      (tenant.status === 'suspended' || tenant.status === 'deleted' || tenant.status === 'archived')
    )
      refusal = { code: CLOSED[tenant.status], field: 'customer_id', detail: `the tenant is ${tenant.status}` };
    const slot: TenantSlot = {
      name,
      bytes,
      start: 0,
      end: bytes.length,
      partition: partitionOf(bytes, 0, bytes.length, partitions),
      spread: Math.min(partitions, settings.spread.get(name) ?? 1),
      refusal,
      rate: tenant === null || rate === null ? null : { tenantId: tenant.id, rate },
    };
    this.#slots.set(name, slot);
    return slot;
  }
}

function sameBytes(a: Range, b: Range): boolean {
  const length = a.end - a.start;
  if (b.end - b.start !== length) return false;
  for (let i = 0; i < length; i++) if (a.bytes[a.start + i] !== b.bytes[b.start + i]) return false;
  return true;
}

function isBlank(bytes: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) {
    const byte = bytes[i] as number;
    if (byte !== 32 && byte !== 9 && byte !== 13) return false;
  }
  return true;
}
