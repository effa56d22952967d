import type { Principal, Rate, Tenant, Tier } from '../schemas/index.ts';
import type { RateLimits } from './rate-limit.ts';

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
