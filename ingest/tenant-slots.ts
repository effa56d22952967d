import type { ErrorCode, Rate, Tenant } from '../schemas/index.ts';
import { murmur2, partitionOf } from './partitioner.ts';
import type { PlacedTenant } from './placement.ts';
import { type Range, sameBytes, textOf } from './record-writer.ts';
import type { ScanContext } from './scan-context.ts';

/** What a body's events of one customer_id have in common; the range is the customer_id. */
export interface TenantSlot extends PlacedTenant {
  /** why its events are rejected */
  refusal: { code: ErrorCode; field: string; detail: string } | null;
  rate: { tenantId: string; rate: Rate } | null;
}

/** A tenant in one of these states sends nothing. */
const CLOSED = { suspended: 'tenant_suspended', deleted: 'tenant_deleted', archived: 'tenant_archived' } as const;

/** The tenants of one body's events. */
export class TenantSlots {
  /** customer_ids to be asked for */
  readonly unknown = new Set<string>();
  /** rate tokens taken, by tenant id */
  readonly taken = new Map<string, number>();
  readonly #context: ScanContext;
  readonly #byHash = new Map<number, TenantSlot>();
  /** the last event's: the next one's is mostly the same */
  #last: TenantSlot | undefined;

  constructor(context: ScanContext) {
    this.#context = context;
  }

  /** The slot of the only tenant that the body's key may send for. */
  ofKey(tenant: Tenant): TenantSlot {
    if (this.#last === undefined) {
      const bytes = Buffer.from(tenant.customerId);
      this.#last = this.#make({ bytes, start: 0, end: bytes.length }, tenant.customerId, tenant);
    }
    return this.#last;
  }

  /** @returns undefined when the tenant must be asked for */
  find(range: Range): TenantSlot | undefined {
    const { bytes, start, end } = range;
    if (this.#last !== undefined && isOf(this.#last, bytes, start, end)) return this.#last;
    const hash = murmur2(bytes, start, end);
    let slot = this.#byHash.get(hash);
    if (slot === undefined || !isOf(slot, bytes, start, end)) {
      const name = textOf(range);
      const tenant = this.#context.tenant(name);
      if (tenant === undefined) {
        this.unknown.add(name);
        return undefined;
      }
      slot = this.#make(range, name, tenant);
      this.#byHash.set(hash, slot);
    }
    this.#last = slot;
    return slot;
  }

  /** Takes a token of the tenant's rate. @returns false when there is none */
  take({ rate }: TenantSlot): boolean {
    if (rate === null || this.unknown.size > 0) return true;
    const { limits, now } = this.#context;
    if (!limits.take(rate.tenantId, rate.rate, now)) return false;
    this.taken.set(rate.tenantId, (this.taken.get(rate.tenantId) ?? 0) + 1);
    return true;
  }

  #make({ bytes, start, end }: Range, name: string, tenant: Tenant | null): TenantSlot {
    const { partitions, settings, limits } = this.#context;
    const rate = tenant === null ? null : limits.rateOf(tenant.tier);
    let refusal: TenantSlot['refusal'] = null;
    if (tenant === null && settings.unknownTenants === 'reject')
      refusal = { code: 'unknown_tenant', field: 'customer_id', detail: 'there is no such tenant' };
    else if (
      tenant !== null &&
      (tenant.status === 'suspended' || tenant.status === 'deleted' || tenant.status === 'archived')
    )
      refusal = { code: CLOSED[tenant.status], field: 'customer_id', detail: `the tenant is ${tenant.status}` };
    return {
      name,
      bytes,
      start,
      end,
      partition: partitionOf(bytes, start, end, partitions),
      spread: Math.min(partitions, settings.spread.get(name) ?? 1),
      refusal,
      rate: tenant === null || rate === null ? null : { tenantId: tenant.id, rate },
    };
  }
}

const isOf = (slot: TenantSlot, bytes: Uint8Array, start: number, end: number): boolean =>
  sameBytes(slot.bytes, slot.start, slot.end, bytes, start, end);
