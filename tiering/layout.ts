/** The archive's layout: what analysts and other tools rely on (docs/archive.md). */

export const EVENTS_PREFIX = 'events/';
/** Version of the columns below; a manifest names it. */
export const SCHEMA_VERSION = 1;

/** Columns of a file, in order, with DuckDB's types. Texts where other engines know no better (UUID, JSON). */
export const COLUMNS = {
  tenant_id: 'VARCHAR',
  customer_id: 'VARCHAR',
  idempotency_key: 'VARCHAR',
  source: 'VARCHAR',
  type: 'VARCHAR',
  timestamp: 'TIMESTAMP_MS',
  received_at: 'TIMESTAMP_MS',
  user_id: 'VARCHAR',
  request_id: 'VARCHAR',
  data: 'VARCHAR',
  log_partition: 'INTEGER',
  log_offset: 'BIGINT',
} as const;

/** A UTC day, `YYYY-MM-DD`. */
export type Day = string;
const DAY_MS = 86_400_000;

export const dayOf = (ms: number): Day => new Date(ms).toISOString().slice(0, 10);
export const startOf = (day: Day): number => Date.parse(`${day}T00:00:00Z`);
export const endOf = (day: Day): number => startOf(day) + DAY_MS;
/** Whether it is a day of the calendar. */
export const isDay = (text: string): boolean =>
  /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(startOf(text)) && dayOf(startOf(text)) === text;

export const prefixOf = (day: Day): string => `${EVENTS_PREFIX}date=${day}/`;
export const partKey = (day: Day, n: number): string => `${prefixOf(day)}part-${n}.parquet`;
export const manifestKey = (day: Day): string => `${prefixOf(day)}manifest.json`;
/** The number of a part file, or undefined. */
export const partNumber = (key: string): number | undefined => {
  const found = /\/part-(\d+)\.parquet$/.exec(key)?.[1];
  return found === undefined ? undefined : Number(found);
};
export const dayOfKey = (key: string): Day | undefined => /^events\/date=(\d{4}-\d\d-\d\d)\//.exec(key)?.[1];

/** What lifecycle rules go by: parts grow cold, manifests stay readable, and neither expires while a tenant in them is held. */
export const tagsOf = (kind: 'part' | 'manifest', isHeld: boolean): Record<string, string> => ({
  tidemark: kind,
  hold: isHeld ? 'yes' : 'no',
});
