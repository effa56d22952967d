import type { BillingPorts, CloseDeps } from '../billing/index.ts';

/** What the billing routes need beside the pool. */
export interface BillingOptions extends BillingPorts {
  /** see `CloseDeps` */
  adjustWithinMs: CloseDeps['adjustWithinMs'];
  /** how long after its end a period stays open for late events */
  graceMs: number;
}
