import type { Exact } from './decimals.ts';

export const MODELS = ['flat', 'per_unit', 'graduated', 'volume', 'package', 'percentage'] as const;
export type Model = (typeof MODELS)[number];

/** A price for a meter, or a flat fee, as it is stored and shown: every number is a decimal string. */
export interface Charge {
  /** names the charge within its plan; its place (`1`, `2`, …) where none is given */
  key?: string;
  name?: string;
  /** slug; absent for flat */
  meter?: string;
  /** only usage whose attributes have any of these values */
  filters?: Record<string, readonly string[]>;
  /** one line for each combination of these attributes, each rated by itself */
  group_by?: readonly string[];
  model: Model;
  /** flat */
  amount?: string;
  /** per_unit */
  unit_amount?: string;
  /** graduated, volume */
  tiers?: readonly Tier[];
  /** package */
  package_size?: string;
  package_amount?: string;
  /** percentage */
  rate_percent?: string;
  fixed_amount?: string;
  free_events?: string;
  free_units?: string;
  /** any model */
  included?: string;
  minimum?: string;
  maximum?: string;
  discount_amount?: string;
  discount_percent?: string;
}

/** Units above the last tier's bound, up to and including this one's. */
export interface Tier {
  up_to: string | null;
  unit_amount?: string;
  flat_amount?: string;
}

/** A checked charge, its numbers read. */
export interface CheckedCharge {
  charge: Charge;
  key: string;
  model: CheckedModel;
  included: Exact | undefined;
  minimum: Exact | undefined;
  maximum: Exact | undefined;
  discountAmount: Exact | undefined;
  discountPercent: Exact | undefined;
}

export type CheckedModel =
  | { model: 'flat'; amount: Exact }
  | { model: 'per_unit'; unitAmount: Exact }
  | { model: 'graduated' | 'volume'; tiers: readonly CheckedTier[] }
  | { model: 'package'; size: Exact; amount: Exact }
  | { model: 'percentage'; rate: Exact; fixed: Exact; freeEvents: Exact; freeUnits: Exact };

export interface CheckedTier {
  /** undefined: open */
  upTo: Exact | undefined;
  unitAmount: Exact;
  flatAmount: Exact;
}
