import type { Meter } from '../../schemas/index.ts';
import type { MeterUsageQuery, MeterUsageRow, Queryable } from '../../sinks/index.ts';

export type { Queryable } from '../../sinks/index.ts';
export type UsageRow = MeterUsageRow;

/** Finds a meter by slug, as a tenant sees it. */
export type FindMeter = (slug: string, tenantId: string | null) => Promise<Meter | undefined>;

/** Reads metered values in the caller's snapshot. */
export type ReadUsage = (database: Queryable, query: MeterUsageQuery) => Promise<UsageRow[]>;

/** How far a statement has counted a partition of the log: events before `next`. */
export interface Position {
  topic: string;
  partition: number;
  shard: number;
  next: number;
}

/** A raw event as a replay reads it. */
export interface RawEvent {
  /** Unix ms */
  timestamp: number;
  /** claim key: what breaks ties of LATEST, compares as text */
  key: string;
  type: string;
  /** scalars under dotted names, as texts; `user_id` and `request_id` among them */
  attributes: ReadonlyMap<string, string>;
}

/**
 * A tenant's raw events with `from` ≤ timestamp < `to` that lie before the positions, in any order, less those that were
 * voided or replaced before the positions. The database's, the archive's, or both.
 */
export type ReadRawEvents = (query: {
  tenantId: string;
  from: number;
  to: number;
  positions: readonly Position[];
}) => AsyncIterable<RawEvent>;
