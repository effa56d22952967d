import { claimKeyOf } from '../schemas/index.ts';
import { murmur2 } from './partitioner.ts';
import { type Envelope, type Range, textOf } from './record-writer.ts';

/** A tenant with the partitions of its events. */
export interface PlacedTenant extends Range {
  /** customer_id */
  name: string;
  partition: number;
  /** how many partitions from there on */
  spread: number;
}

/** Decides which partitions the events of one body go to. */
export class Placement {
  /** claim keys whose place is to be asked for */
  readonly unplaced = new Set<string>();
  /** corrections of spread tenants in this body: claim key → partition */
  readonly corrections = new Map<string, number>();
  readonly #partitions: number;
  readonly #placed: (claimKey: string) => number | null | undefined;

  /** @param placed partition of a correction; null: that is no correction, undefined: not asked yet */
  constructor({ partitions, placed }: { partitions: number; placed(claimKey: string): number | null | undefined }) {
    this.#partitions = partitions;
    this.#placed = placed;
  }

  /**
   * A correction goes where the event that it replaces is counted: for another correction that is not where its own key says.
   * @param replaced key of the event that this one replaces @returns undefined: to be asked for
   */
  of(envelope: Envelope, replaced: Range | undefined, tenant: PlacedTenant): number | undefined {
    if (tenant.spread === 1) return tenant.partition;
    const byHash = (key: Range) => (tenant.partition + (hashOfKey(envelope, key) % tenant.spread)) % this.#partitions;
    if (replaced === undefined) return byHash(envelope.key);
    const target = claimKey(envelope, tenant, replaced);
    const known = this.corrections.get(target) ?? this.#placed(target);
    if (known === undefined) {
      this.unplaced.add(target);
      return undefined;
    }
    const partition = known ?? byHash(replaced);
    this.corrections.set(claimKey(envelope, tenant, envelope.key), partition);
    return partition;
  }
}

function claimKey({ keyedBySource, source }: Envelope, { name: tenant }: PlacedTenant, key: Range): string {
  return claimKeyOf({ tenant, keyedBySource, source: keyedBySource ? textOf(source) : null, key: textOf(key) });
}

/** Of a CloudEvent the pair (source, id) is hashed, joined by a NUL that neither can hold. */
function hashOfKey(envelope: Envelope, key: Range): number {
  if (!envelope.keyedBySource) return murmur2(key.bytes, key.start, key.end) & 0x7fffffff;
  const { source } = envelope;
  const pair = Buffer.concat([
    source.bytes.subarray(source.start, source.end),
    Buffer.from([0]),
    key.bytes.subarray(key.start, key.end),
  ]);
  return murmur2(pair) & 0x7fffffff;
}
