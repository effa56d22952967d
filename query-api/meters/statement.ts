import type { Meter } from '../../schemas/index.ts';

/** What a meter query asks of the database. Times are Unix ms. */
export interface RollupQuery {
  meter: Meter;
  /** null: all tenants */
  tenantIds: readonly string[] | null;
  /** `from`, window starts, `to` */
  boundaries: readonly number[];
  /** hours that a boundary cuts: read from minutes */
  splitHours: readonly number[];
  /** only minutes answer it */
  minutesOnly: boolean;
  bySubject: boolean;
  /** attributes of the meter's groupBy */
  groupBy: readonly string[];
  /** by attribute: any of these values */
  filters: ReadonlyMap<string, readonly string[]>;
}

export interface Statement {
  text: string;
  values: unknown[];
}
