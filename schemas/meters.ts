/** What a meter is. One idea for usage, performance and business numbers alike. */

export const AGGREGATIONS = [
  'COUNT',
  'SUM',
  'MIN',
  'MAX',
  'AVG',
  'UNIQUE_COUNT',
  'LATEST',
  'PERCENTILE',
  'PEAK',
] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

export type FilterOperator = 'eq' | 'ne' | 'in' | 'gt' | 'gte' | 'lt' | 'lte' | 'exists';
export interface MeterFilter {
  /** attribute name, dotted where nested */
  property: string;
  op: FilterOperator;
  value?: string | number | boolean | readonly (string | number)[];
}

export interface Meter {
  id: number;
  slug: string;
  name: string;
  description: string;
  /** `*` counts events of every type */
  eventType: string;
  aggregation: Aggregation;
  /** attribute that is summed, ranked or distinguished; absent for COUNT. `user_id` and `request_id` name the event's own fields */
  valueProperty?: string;
  /** attribute names, in the order of `rollup_groups.values` */
  groupBy: readonly string[];
  /** all must hold */
  filters: readonly MeterFilter[];
  /** at least one must hold; absent: no such condition */
  anyOf?: readonly MeterFilter[];
}
