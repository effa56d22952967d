import type { WindowSize } from '../../metering/index.ts';
import type { Meter } from '../../schemas/index.ts';

/** A checked meter query. Times are Unix ms. */
export interface MeterQuery {
  meter: Meter;
  tenantIds: readonly string[] | null;
  from: number | undefined;
  to: number | undefined;
  windowSize: WindowSize | undefined;
  windowTimeZone: string;
  bySubject: boolean;
  groupBy: readonly string[];
  filters: ReadonlyMap<string, readonly string[]>;
  /** of a PERCENTILE meter */
  quantile: number;
  /** windows without data are zero instead of absent, for every group that appears in the range; such rows come by window */
  fillEmpty: boolean;
  /** highest or lowest values first; otherwise, and where they are equal, by window, subject and groups */
  byValue?: 'asc' | 'desc' | undefined;
  /** at most so many rows */
  limit?: number | undefined;
  /** only the groups with the so many highest values over the whole range */
  top?: number | undefined;
  /** rows that come after this one */
  after?: RowPlace | undefined;
}

/** Where a row stands in its answer. */
export interface RowPlace {
  windowStart: number;
  /** subject, where asked for, then the groups in their order */
  key: readonly (string | null)[];
  /** of an order by value: a decimal literal, all digits */
  value?: string | undefined;
}

/** One row of the answer. `value` is a decimal literal. */
export interface MeterRow {
  windowStart: number;
  windowEnd: number;
  key: readonly (string | null)[];
  value: string;
  /** the value with the digits that `value` doesn't show */
  exact?: string;
  quantiles?: { p50: number; p95: number; p99: number };
}
