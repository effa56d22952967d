import { ACTOR, KIND, LIMITS, REPLACES, RESERVED_TYPE } from '../schemas/index.ts';
import { FIELD } from './event-fields.ts';
import type { EventScan } from './event-scan.ts';
import type { JsonScanner } from './json-scanner.ts';
import { type Envelope, type Range, sameBytes } from './record-writer.ts';
import type { ScanContext } from './scan-context.ts';
import type { TenantSlot, TenantSlots } from './tenant-slots.ts';
import { parseTimestamp } from './timestamps.ts';

/** An envelope, and where its event goes. */
export interface Addressed extends Envelope {
  tenant: TenantSlot;
  /** key of the event that it replaces */
  replaced: Range | undefined;
}

const API_CALL: Range = { bytes: Buffer.from('api_call'), start: 0, end: 8 };
const NONE: Range = { bytes: Buffer.alloc(0), start: -1, end: 0 };

/** Makes an envelope of what was scanned, and checks it; what is wrong is said to the scan. */
export class EnvelopeReader {
  readonly #context: ScanContext;
  readonly #scanner: JsonScanner;
  readonly #scan: EventScan;
  readonly #tenants: TenantSlots;

  constructor(context: ScanContext, scanner: JsonScanner, scan: EventScan, tenants: TenantSlots) {
    this.#context = context;
    this.#scanner = scanner;
    this.#scan = scan;
    this.#tenants = tenants;
  }

  /** @returns undefined when the event is rejected (see the scan), or its tenant must be asked for */
  read(): Addressed | undefined {
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
    const name = cloud ? 'time' : 'timestamp';
    const timestamp = this.#timestamp(cloud ? FIELD.time : FIELD.timestamp, name, cloud);
    if (scan.code !== null) return undefined;
    if (timestamp < LIMITS.times.from) scan.refuse('too_old', name, 'before 1970');
    else if (timestamp < now - settings.maxAgeMs && !backfill)
      scan.refuse('too_old', name, `older than ${settings.maxAgeMs / 86_400_000} days`);
    if (timestamp > now + settings.maxAheadMs)
      scan.refuse('too_new', name, `more than ${settings.maxAheadMs / 1000} s ahead`);
    if (type.start >= 0 && this.#isReserved(type))
      scan.refuse('invalid_field', 'type', `must not begin with ${RESERVED_TYPE}`);
    const replaced = this.#correction(cloud);
    if (scan.code !== null) return undefined;
    const tenant = this.#tenant(cloud);
    if (tenant === undefined) return undefined;
    return {
      tenant,
      replaced,
      key: itsKey,
      source,
      keyedBySource: cloud,
      type: type.start < 0 ? API_CALL : type,
      timestamp,
      receivedAt: now,
      user,
      request,
    };
  }

  #isReserved({ bytes, start, end }: Range): boolean {
    if (end - start < RESERVED_TYPE.length || bytes[start] !== RESERVED_TYPE.charCodeAt(0)) return false;
    return this.#scanner.text(start, start + RESERVED_TYPE.length) === RESERVED_TYPE;
  }

  /** The key of the event that this one replaces, if it does; who sends it is noted. */
  #correction(cloud: boolean): Range | undefined {
    const scan = this.#scan;
    const { attributes } = scan;
    const at = attributes.find(REPLACES);
    if (at < 0) return undefined;
    const range = {
      bytes: this.#scanner.bytes,
      start: attributes.valueStarts[at] as number,
      end: attributes.valueEnds[at] as number,
    };
    const most = cloud ? LIMITS.cloudEventPart : LIMITS.idempotencyKey;
    if (attributes.kinds[at] !== KIND.string || range.end === range.start || range.end - range.start > most) {
      scan.refuse('invalid_field', REPLACES, `must be the idempotency key of an event, at most ${most} bytes`);
      return undefined;
    }
    attributes.setText(ACTOR, this.#context.principal.keyId);
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
    if (this.#scan.controlled & (1 << field)) this.#scan.refuse('invalid_character', name, 'control character');
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
    const scan = this.#scan;
    const named = this.#identifier(FIELD.customer_id, 'customer_id', LIMITS.tenant);
    const subject = cloud ? this.#identifier(FIELD.subject, 'subject', LIMITS.identifier) : NONE;
    if (scan.code !== null) return undefined;
    const own = this.#context.principal.tenant;
    if (own !== null) {
      this.#checkNames(this.#tenants.ofKey(own), named, subject);
      if (scan.code !== null) return undefined;
    }
    const tenant = own === null ? this.#named(cloud, named, subject) : this.#tenants.ofKey(own);
    if (tenant === undefined) return undefined;
    if (tenant.refusal !== null) {
      scan.refuse(tenant.refusal.code, tenant.refusal.field, tenant.refusal.detail);
      return undefined;
    }
    if (this.#tenants.take(tenant)) return tenant;
    scan.refuse('rate_limited', '', `more than ${tenant.rate?.rate.perSecond} events a second`);
    return undefined;
  }

  /** A tenant's key sends for that tenant. */
  #checkNames(own: TenantSlot, named: Range, subject: Range): void {
    for (const [range, field] of [
      [named, 'customer_id'],
      [subject, 'subject'],
    ] as const)
      if (range.start >= 0 && !isSame(own, range))
        this.#scan.refuse('wrong_tenant', field, 'the key belongs to another tenant');
  }

  /** A platform's key says for whom. */
  #named(cloud: boolean, named: Range, subject: Range): TenantSlot | undefined {
    const scan = this.#scan;
    const range = named.start >= 0 ? named : subject;
    if (range.start < 0) {
      scan.refuse('missing_field', cloud ? 'subject' : 'customer_id', 'whose usage is it?');
      return undefined;
    }
    if (range.end - range.start > LIMITS.tenant) {
      scan.refuse('field_too_long', 'subject', `at most ${LIMITS.tenant} bytes`);
      return undefined;
    }
    const tenant = this.#tenants.find(range);
    if (tenant !== undefined && named.start >= 0 && subject.start >= 0 && !isSame(named, subject))
      scan.attributes.addText('subject', subject.start, subject.end);
    return tenant;
  }
}

const isSame = (a: Range, b: Range): boolean => sameBytes(a.bytes, a.start, a.end, b.bytes, b.start, b.end);
