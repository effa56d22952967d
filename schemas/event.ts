/**
 * The event: its limits and the columns that its common fields have in the raw table.
 * `../docs/manual.md` says the same in words.
 */

/** Limits of one event. Beyond them that event alone is rejected. Lengths of strings are in UTF-8 bytes. */
export const LIMITS = {
  /** bytes of one event as sent */
  eventBytes: 64 * 1024,
  /** depth of nested objects and arrays below the event */
  nesting: 16,
  /** flattened names that become dimensions and measures; the rest stays in `data` */
  attributes: 64,
  /** bytes; a longer string stays in `data` and is no dimension */
  attributeBytes: 512,
  idempotencyKey: 512,
  /** each of a CloudEvent's `source` and `id` */
  cloudEventPart: 256,
  type: 128,
  tenant: 128,
  identifier: 256,
  /** |number| must be below this */
  numberMagnitude: 1e20,
  decimals: 18,
  /** when an event can have been: Unix ms, the end exclusive; PostgreSQL's partitions reach no further */
  times: { from: 0, to: Date.UTC(2200, 0, 1) },
  bodyBytes: 5 * 1024 * 1024,
  unpackedBytes: 50 * 1024 * 1024,
  batchEvents: 10_000,
} as const;

/** How an attribute is written on the log: the index is the Avro union branch. */
export const ATTRIBUTE_KINDS = ['string', 'long', 'decimal', 'boolean'] as const;
export type AttributeKind = (typeof ATTRIBUTE_KINDS)[number];
export const KIND = { string: 0, long: 1, decimal: 2, boolean: 3 } as const;

/** A column of the raw table that holds one attribute, so that it is not stored a second time in `data`. */
export interface AttributeColumn {
  name: string;
  /** An attribute of another kind than the column's stays in `data`, so that reading gives back what was sent. */
  holds: 'text' | 'numeric' | 'integer';
}

/** Attributes with a column of their own, in the order of the raw table's columns. */
export const ATTRIBUTE_COLUMNS: readonly AttributeColumn[] = [
  { name: 'endpoint', holds: 'text' },
  { name: 'method', holds: 'text' },
  { name: 'status_code', holds: 'integer' },
  { name: 'duration_ms', holds: 'numeric' },
  { name: 'tokens_consumed', holds: 'numeric' },
  { name: 'model', holds: 'text' },
  { name: 'level', holds: 'text' },
  { name: 'message', holds: 'text' },
  { name: 'error_type', holds: 'text' },
  { name: 'agent_type', holds: 'text' },
  { name: 'status', holds: 'text' },
  { name: 'tool', holds: 'text' },
  { name: 'feature', holds: 'text' },
  { name: 'queue_wait_ms', holds: 'numeric' },
  { name: 'delta', holds: 'numeric' },
];

/** Columns of the raw table that are written, in the order in which COPY writes them. */
export const RAW_EVENT_COLUMNS: readonly string[] = [
  'timestamp',
  'received_at',
  'log_offset',
  'shard',
  'tenant_id',
  'key',
  'keyed_by_source',
  'idempotency_key',
  'source',
  'type',
  'user_id',
  'request_id',
  ...ATTRIBUTE_COLUMNS.map((column) => column.name),
  'data',
];

/** A raw event as it is read again, wherever it stands. */
export interface RawEventRow {
  /** Unix ms */
  timestamp: number;
  /** claim key, a UUID's text */
  key: string;
  shard: number;
  log_offset: number;
  tenant_id: string;
  type: string;
  user_id: string | null;
  request_id: string | null;
  /** JSON text: numbers have all their digits */
  data: string;
}

/** An event of plain values, for tests, imports and reading; the hot path works on bytes. */
export interface PlainEvent {
  tenant: string;
  idempotency_key: string;
  source: string | null;
  keyed_by_source: boolean;
  type: string;
  /** Unix milliseconds, UTC */
  timestamp: number;
  /** Unix milliseconds, UTC */
  received_at: number;
  user_id: string | null;
  request_id: string | null;
  attributes: Map<string, AttributeValue>;
  /** JSON object text, or null */
  data: string | null;
}
export type AttributeValue =
  | { kind: 'string'; value: string }
  | { kind: 'long'; value: number }
  | { kind: 'decimal'; value: string }
  | { kind: 'boolean'; value: boolean };
