/** Holds stored rollup rows against recounted ones: every column, exactly; sketches bin by bin; distinct values one by one. */
import type { ClientBase } from 'pg';
import { decimalFrom, ExactSum } from '../../metering/index.ts';
import { uuidOf } from '../../schemas/index.ts';
import type { RowTexts } from '../rollups/coarse-rows.ts';
import type { Cell } from '../rollups/rollups.ts';
import type { Row } from '../rollups/row.ts';
import type { Counted, Share, Stretch } from './count.ts';

/** The columns of a row, each in one way of writing; what is NULL is absent. */
type Values = Record<string, string>;

/** One row that is not as it should be. */
export interface Difference {
  meter: string;
  tenant_id: string;
  resolution: 'minute' | 'hour';
  bucket: string;
  /** values of the dimensions; null: all groups of the tenant together */
  group: readonly (string | null)[] | null;
  /** columns that differ, as they are stored and as they are recounted; absent where there is no such row */
  stored?: Values;
  recounted?: Values;
}

/** A difference, and where to mend it. */
export interface Found {
  difference: Difference;
  share: Share;
  cell: Cell;
}

/** What can't be compared row by row. */
export interface Exceptions {
  /** `meter tenant`: groups beyond the limit were counted as `other`, by the order in which they came: only totals are compared */
  folded: ReadonlySet<string>;
  /** tenants whose raw events were erased: rollups keep what they counted, nothing is compared */
  erased: ReadonlySet<string>;
}

interface Entry {
  share: Share;
  cell: Cell;
  tenantId: string;
  group: readonly (string | null)[] | null;
  stored: Values | undefined;
  recounted: Values | undefined;
}

const WHERE = `WHERE r.meter_id = ANY ($1::int[]) AND r.shard = ANY ($2::int[]) AND r.bucket >= $3 AND r.bucket < $4 AND ($5::uuid IS NULL OR r.tenant_id = $5)`;
const ROWS = (table: string) => `
  DECLARE compared NO SCROLL CURSOR FOR
  SELECT (extract(epoch FROM r.bucket) * 1000)::float8 AS bucket, r.meter_id, r.shard, r.tenant_id, r.group_key::text AS group_key, g.values AS "group",
    r.count::text AS count, r.sum::text AS sum, r.min::text AS min, r.max::text AS max, r.last::text AS last,
    (extract(epoch FROM r.last_at) * 1000)::float8 AS last_at, r.last_key::text AS last_key,
    r.bins::text[] AS bins, r.bin_counts::text[] AS counts, r.levels::text[] AS levels, NULL::text[] AS members
  FROM ${table} AS r LEFT JOIN rollup_groups AS g USING (group_key)
  ${WHERE}`;
const MEMBERS = (table: string) => `
  DECLARE compared NO SCROLL CURSOR FOR
  SELECT (extract(epoch FROM r.bucket) * 1000)::float8 AS bucket, r.meter_id, r.shard, r.tenant_id, r.group_key::text AS group_key,
    (SELECT g.values FROM rollup_groups AS g WHERE g.group_key = r.group_key) AS "group",
    NULL AS count, NULL AS sum, NULL AS min, NULL AS max, NULL AS last, NULL::float8 AS last_at, NULL AS last_key,
    NULL::text[] AS bins, NULL::text[] AS counts, NULL::text[] AS levels, array_agg(DISTINCT m.member) AS members
  FROM ${table} AS r, unnest(r.members) AS m(member)
  ${WHERE} GROUP BY r.bucket, r.meter_id, r.shard, r.tenant_id, r.group_key`;
const FETCH = 2_000;

interface StoredRow extends Omit<RowTexts, 'count'> {
  bucket: number;
  meter_id: number;
  shard: number;
  tenant_id: string;
  group_key: string;
  group: (string | null)[] | null;
  count: string | null;
  bins: string[] | null;
  counts: string[] | null;
  levels: string[] | null;
  members: string[] | null;
}

/** Compares what was recounted with what the transaction has of the same shards. @returns rows that are stored, and what differs */
export async function compareRows(
  client: ClientBase,
  counted: readonly Counted[],
  stretch: Stretch,
  exceptions: Exceptions,
): Promise<{ rows: number; found: Found[] }> {
  const entries = new Map<string, Entry>();
  const shares = new Map(counted.map(({ share }) => [`${share.rowShard} ${share.meter.id}`, share]));
  for (const { share, rollups } of counted)
    for (const row of rollups.touched) {
      const { series } = row;
      const place = { bucket: row.bucket, isHour: row.isHour, tenantId: uuidOf(series.tenantId), group: series.values };
      const entry = entryOf(entries, exceptions, share, { ...place, groupKey: uuidOf(series.groupKey) });
      if (entry !== undefined)
        entry.recounted = add(
          entry,
          entry.recounted,
          recountedValues(row, (id) => rollups.memberText(id)),
        );
    }
  const values = [
    [...new Set(counted.map(({ share }) => share.meter.id))],
    [...new Set(counted.map(({ share }) => share.rowShard))],
    new Date(stretch.from),
    new Date(stretch.to),
    stretch.tenantId ?? null,
  ];
  let rows = 0;
  for (const isHour of stretch.hoursOnly ? [true] : [false, true])
    for (const statement of [
      ROWS(isHour ? 'rollups_hour' : 'rollups_minute'),
      MEMBERS(isHour ? 'members_hour' : 'members_minute'),
    ])
      for await (const stored of readStored(client, statement, values)) {
        rows++;
        const share = shares.get(`${stored.shard} ${stored.meter_id}`);
        if (share === undefined) continue;
        const { bucket, tenant_id: tenantId, group_key: groupKey, group } = stored;
        const entry = entryOf(entries, exceptions, share, { bucket, isHour, tenantId, groupKey, group });
        if (entry !== undefined) entry.stored = add(entry, entry.stored, storedValues(stored));
      }
  return { rows, found: [...entries.values()].flatMap(differenceOf) };
}

async function* readStored(
  client: ClientBase,
  statement: string,
  values: readonly unknown[],
): AsyncGenerator<StoredRow> {
  await client.query(statement, [...values]);
  for (let more = true; more; ) {
    const { rows } = await client.query<StoredRow>(`FETCH ${FETCH} FROM compared`);
    more = rows.length === FETCH;
    yield* rows;
  }
  await client.query('CLOSE compared');
}

function entryOf(
  entries: Map<string, Entry>,
  { folded, erased }: Exceptions,
  share: Share,
  row: {
    bucket: number;
    isHour: boolean;
    tenantId: string;
    groupKey: string;
    group: readonly (string | null)[] | null;
  },
): Entry | undefined {
  const { bucket, isHour, tenantId } = row;
  if (erased.has(tenantId)) return undefined;
  const isFolded = folded.has(`${share.meter.id} ${tenantId}`);
  const key = `${share.rowShard} ${share.meter.id} ${isHour} ${bucket} ${tenantId} ${isFolded ? '' : row.groupKey}`;
  const known = entries.get(key);
  if (known !== undefined) return known;
  const cell = { meterId: share.meter.id, tenantId: Buffer.from(tenantId.replaceAll('-', ''), 'hex'), bucket, isHour };
  const group = isFolded ? null : (row.group ?? []);
  const entry: Entry = { share, cell, tenantId, group, stored: undefined, recounted: undefined };
  entries.set(key, entry);
  return entry;
}

/** Of rows that are compared together only what adds up. */
function add({ group }: Entry, sum: Values | undefined, more: Values): Values {
  if (group !== null) return more;
  const total: Values = {};
  for (const name of ['count', 'sum']) {
    const terms = [sum?.[name], more[name]].filter((term) => term !== undefined);
    const exact = new ExactSum();
    for (const term of terms) exact.add(decimalFrom(term));
    if (terms.length > 0) total[name] = plain(exact.toString());
  }
  return total;
}

/** A decimal without zeros at its end. */
const plain = (text: string): string => (text.includes('.') ? text.replace(/\.?0+$/, '') : text);
const pairs = (keys: readonly (string | number)[], values: readonly string[]): string =>
  keys.map((key, i) => `${key}:${plain(values[i] ?? '')}`).join(' ');

/** As `encodeRollups` would write it. */
function recountedValues(row: Row, memberText: (id: number) => string): Values {
  if (row.members !== null) return { members: JSON.stringify([...row.members].map(memberText).sort()) };
  const { sum, min, max, last, lastKey, levels, bins } = row;
  const found: Values = { count: String(row.count) };
  for (const [name, value] of Object.entries({ sum, min, max, last }))
    if (value !== null) found[name] = plain(value.toString());
  if (last !== null) found.last_at = String(row.lastAt);
  if (lastKey !== null) found.last_key = uuidOf(lastKey);
  if (levels !== null) found.levels = pairs([...levels.offsets.subarray(0, levels.length)], levels.values.map(String));
  else if (bins !== null)
    found.bins = pairs([...bins.keys.subarray(0, bins.length)], [...bins.counts.subarray(0, bins.length)].map(String));
  return found;
}

function storedValues(row: StoredRow): Values {
  if (row.members !== null) return { members: JSON.stringify(row.members.sort()) };
  const { sum, min, max, last, bins, counts, levels } = row;
  const found: Values = { count: row.count ?? '' };
  for (const [name, value] of Object.entries({ sum, min, max, last })) if (value !== null) found[name] = plain(value);
  if (row.last_at !== null) found.last_at = String(row.last_at);
  if (row.last_key !== null) found.last_key = row.last_key;
  if (bins !== null && levels !== null) found.levels = pairs(bins, levels);
  else if (bins !== null && counts !== null) found.bins = pairs(bins, counts);
  return found;
}

/** Longest text of a column in a report. */
const MOST_TEXT = 200;

function differenceOf({ share, cell, tenantId, group, stored, recounted }: Entry): Found[] {
  const names = Object.keys({ ...stored, ...recounted }).filter((name) => stored?.[name] !== recounted?.[name]);
  if (names.length === 0) return [];
  const only = (values: Values) =>
    Object.fromEntries(
      names.flatMap((name) => (values[name] === undefined ? [] : [[name, values[name].slice(0, MOST_TEXT)]])),
    );
  const difference: Difference = {
    meter: share.meter.slug,
    tenant_id: tenantId,
    resolution: cell.isHour ? 'hour' : 'minute',
    bucket: new Date(cell.bucket).toISOString(),
    group,
    ...(stored === undefined ? {} : { stored: only(stored) }),
    ...(recounted === undefined ? {} : { recounted: only(recounted) }),
  };
  return [{ difference, share, cell }];
}
