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
  'TIME_WEIGHTED_AVG',
] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

export const FILTER_OPERATORS = ['eq', 'ne', 'in', 'gt', 'gte', 'lt', 'lte', 'exists'] as const;
export type FilterOperator = (typeof FILTER_OPERATORS)[number];
/** What the value of a PEAK or TIME_WEIGHTED_AVG is: the level itself, or a change of it. */
export const VALUE_KINDS = ['gauge', 'delta'] as const;
export type ValueKind = (typeof VALUE_KINDS)[number];
export interface MeterFilter {
  /** attribute name, dotted where nested */
  property: string;
  op: FilterOperator;
  value?: string | number | boolean | readonly (string | number)[];
}

/** What a meter counts: a change of any of these is another version of it. */
export interface MeterDefinition {
  /** `*` counts events of every type */
  eventType: string;
  aggregation: Aggregation;
  /** attribute that is summed, ranked or distinguished; absent for COUNT. `user_id` and `request_id` name the event's own fields */
  valueProperty?: string;
  /** of PEAK and TIME_WEIGHTED_AVG */
  valueKind?: ValueKind;
  /** of PERCENTILE: what a query shows unless it asks for another; absent: 0.95 */
  quantile?: number;
  /** Unix ms; earlier events (by their own time) are not counted */
  eventFrom?: number;
  /** names of the dimensions, in the order of `rollup_groups.values` */
  groupBy: readonly string[];
  /** attribute of a dimension, where it is not its name: see `propertyOf` */
  groupByProperties?: Readonly<Record<string, string>>;
  /** all must hold */
  filters: readonly MeterFilter[];
  /** at least one must hold; absent: no such condition */
  anyOf?: readonly MeterFilter[];
}

/** One version of a meter. */
export interface Meter extends MeterDefinition {
  /** of this version; rollups carry it */
  id: number;
  slug: string;
  name: string;
  description: string;
  /** UUID of the only tenant that it counts, and that sees it; absent: every tenant */
  tenantId?: string;
}

/** The attribute that a dimension of the meter is read from. */
export const propertyOf = (meter: MeterDefinition, name: string): string => meter.groupByProperties?.[name] ?? name;

/** Whether the aggregation is about a level that lasts until it changes. */
export const isLevel = (aggregation: Aggregation): boolean =>
  aggregation === 'PEAK' || aggregation === 'TIME_WEIGHTED_AVG';

/** A meter as the catalogue knows it. */
export interface MeterEntry {
  /** the version that answers queries */
  meter: Meter;
  /** a changed version that is being counted and takes over when it knows the past */
  next: Meter | null;
  /** UUID; of a built-in meter its slug */
  key: string;
  builtin: boolean;
  /** whether `meter` knows the whole past, or its backfill still runs */
  complete: boolean;
  /** archived days (UTC, YYYY-MM-DD) that its backfill could not read yet: nothing of them is in its answers */
  missingDays: readonly string[];
  metadata: Readonly<Record<string, string>> | null;
  createdAt: Date;
  updatedAt: Date;
}

/** Every meter, built in and defined; cached for a second in this process. */
export interface MeterCatalogue {
  /** built-in ones first, then by slug */
  list(): Promise<readonly MeterEntry[]>;
  /** By slug or key. Whether the caller may see a tenant's own meter is the caller's to check. */
  find(reference: string): Promise<MeterEntry | undefined>;
  /** Asks the database the next time: this process has changed something. */
  forget(): void;
}
