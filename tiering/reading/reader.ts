import { join } from 'node:path';
import type { DuckDBValue } from '@duckdb/node-api';
import type { Pool } from 'pg';
import { ObjectFrozen } from '../../sinks/index.ts';
import { type DayRow, filesOfDays } from '../archive/day-state.ts';
import { type Duck, files as filesOf, openDuck } from '../duckdb.ts';
import { type Day, dayOf } from '../layout.ts';
import { listDays } from '../list.ts';
import type { Manifest, ManifestFile } from '../manifest.ts';
import type { TieringDeps } from '../ports.ts';
import { frozenDays } from '../restore.ts';
import { FileCache } from './file-cache.ts';

/** What is looked for. Times are Unix ms, [from, to). */
export interface ArchiveSearch {
  /** null: all */
  tenantIds: readonly string[] | null;
  from: number;
  to: number;
  receivedFrom?: number | undefined;
  receivedTo?: number | undefined;
  idempotencyKey?: string | undefined;
  requestId?: string | undefined;
  userId?: string | undefined;
  type?: string | undefined;
  /** days to look into though they may have come back into the database since they were asked for */
  days?: readonly Day[] | undefined;
  /** only what comes after this in the order of the answer */
  after?: { at: number; shard: number; logOffset: number } | undefined;
}

/** An event of the archive. Times are Unix ms. */
export interface ArchivedEvent {
  at: number;
  received_at: number;
  shard: number;
  log_offset: number;
  tenant_id: string;
  customer_id: string;
  idempotency_key: string;
  source: string | null;
  keyed_by_source: boolean;
  type: string;
  user_id: string | null;
  request_id: string | null;
  /** JSON text without `user_id` and `request_id` */
  data: string;
}

/** Reads raw events where they are archived. */
export interface ArchiveReader {
  /** Days that a search would look into now, newest first. */
  days(query: Pick<ArchiveSearch, 'from' | 'to'>): Promise<Day[]>;
  /** Newest first: by time, shard and offset. @throws TidemarkError `archive_frozen`, `archive_damaged` | {ObjectStoreUnavailable} */
  search(query: ArchiveSearch, limit: number): Promise<ArchivedEvent[]>;
  /** All that match, in any order, a few thousand in memory. @param days as the caller's snapshot has them @throws as `search` */
  scan(query: ArchiveSearch, days: readonly DayRow[]): AsyncIterable<ArchivedEvent[]>;
  close(): Promise<void>;
}

/** Days read at once: few at first, for the page that the newest day fills. */
const BATCHES = [1, 3, 8, 16, 32];

export function openArchiveReader(deps: TieringDeps): ArchiveReader {
  const { pool, store, settings, scratch } = deps;
  const cache = new FileCache(store, join(scratch, 'cache'), settings.cacheBytes, deps.now);
  let opened: Promise<Duck> | undefined;
  const duck = () => {
    opened ??= openDuck({ scratch: join(scratch, 'reader'), ...settings });
    return opened;
  };

  return {
    days: (query) => daysOf(pool, query),
    async search(query, limit) {
      const found: ArchivedEvent[] = [];
      const known = (query.days ?? []).filter((day) => day >= dayOf(query.from) && day <= dayOf(lastOf(query)));
      const days = [...new Set([...known, ...(await daysOf(pool, query))])].sort().reverse();
      if (days.length === 0) return found;
      const shards = await shardsOf(pool);
      for (let at = 0, batch = 0; at < days.length && found.length < limit; batch++) {
        const size = BATCHES[Math.min(batch, BATCHES.length - 1)] ?? 1;
        const some = days.slice(at, at + size);
        at += size;
        const rows = await filesOfDays(pool, some);
        const wanted = rows.flatMap((row) =>
          row.current === undefined ? [] : wantedFiles(row.current.manifest, query),
        );
        if (wanted.length === 0) continue;
        const page = await cache
          .use(wanted, async (paths) => {
            const { text, values } = select(query, wanted, paths, shards);
            const order = 'ORDER BY at_ms DESC, shard DESC, log_offset DESC';
            return (await duck()).rows(`${text} ${order} LIMIT ${limit - found.length}`, values);
          })
          .catch((error) => explain(deps, error, query));
        found.push(...page.map(toEvent));
      }
      return found;
    },
    async *scan(query, days) {
      const shards = await shardsOf(pool);
      for (const row of days)
        for (const file of row.current === undefined ? [] : wantedFiles(row.current.manifest, query)) {
          // A file at a time: the cache need not hold a whole day.
          const held = await holdFile(file).catch((error) => explain(deps, error, query));
          try {
            yield* eventsIn(await duck(), file, held.path, shards, query);
          } finally {
            held.release();
          }
        }
    },
    async close() {
      await (await opened)?.close();
    },
  };

  /** The file's path, kept until it is released. */
  function holdFile(file: ManifestFile): Promise<{ path: string; release(): void }> {
    return new Promise((resolve, reject) => {
      cache.use([file], ([path = '']) => new Promise<void>((release) => resolve({ path, release }))).catch(reject);
    });
  }
}

/** Events of one file, a few thousand at a time. @param path where it is on the disk */
export async function* eventsIn(
  duck: Duck,
  file: ManifestFile,
  path: string,
  shards: Shards,
  query: ArchiveSearch,
): AsyncIterable<ArchivedEvent[]> {
  const { text, values } = select(query, [file], [path], shards);
  for await (const rows of duck.stream(text, values)) yield rows.map(toEvent);
}

/** A frozen file is answered with every day of the question that is frozen, so that one round of restoring does. */
async function explain(deps: TieringDeps, error: unknown, query: ArchiveSearch): Promise<never> {
  if (!(error instanceof ObjectFrozen)) throw error;
  const days = await listDays(deps, { from: dayOf(query.from), to: dayOf(query.to - 1) });
  const frozen = days.filter((day) => day.recalled_until === null && (day.tier === 'cold' || day.tier === 'restoring'));
  throw frozenDays(frozen.map((day) => day.day));
}

type Range = Pick<ArchiveSearch, 'from' | 'to' | 'after'>;

const lastOf = ({ to, after }: Range): number => (after === undefined ? to - 1 : Math.min(to - 1, after.at));

async function daysOf(pool: Pool, range: Range): Promise<Day[]> {
  const { rows } = await pool.query<{ day: Day }>(
    'SELECT day::text AS day FROM archive_days WHERE day BETWEEN $1 AND $2 AND manifest IS NOT NULL AND recalled_until IS NULL ORDER BY day DESC',
    [dayOf(range.from), dayOf(lastOf(range))],
  );
  return rows.map((row) => row.day);
}

/** Shards by topic and partition. */
export type Shards = ReadonlyMap<string, ReadonlyMap<number, number>>;

export async function shardsOf(pool: Pool): Promise<Shards> {
  const { rows } = await pool.query<{ topic: string; partition: number; shard: number }>(
    'SELECT topic, partition, shard FROM log_offsets',
  );
  return new Map(
    [...Map.groupBy(rows, (row) => row.topic)].map(([topic, own]) => [
      topic,
      new Map(own.map(({ partition, shard }) => [partition, shard])),
    ]),
  );
}

/** Files that can hold what is looked for, by the manifest alone. */
function wantedFiles(manifest: Manifest, query: ArchiveSearch): ManifestFile[] {
  if (query.tenantIds !== null && !query.tenantIds.some((id) => id in manifest.tenants)) return [];
  return manifest.files.filter((file) => file.first < query.to && file.last >= query.from);
}

/** Row groups are pruned by DuckDB from their statistics: files are sorted by tenant and time. */
function select(
  query: ArchiveSearch,
  wanted: readonly ManifestFile[],
  paths: readonly string[],
  shards: Shards,
): { text: string; values: DuckDBValue[] } {
  const values: DuckDBValue[] = [];
  const bind = (value: string) => `$${values.push(value)}`;
  const whole = (value: number) => `$${values.push(BigInt(value))}::BIGINT`;
  const conditions = [
    `"timestamp" >= make_timestamp_ms(${whole(query.from)})`,
    `"timestamp" < make_timestamp_ms(${whole(query.to)})`,
  ];
  if (query.tenantIds !== null)
    conditions.push(`tenant_id IN (${query.tenantIds.map((id) => bind(id)).join(', ') || 'NULL'})`);
  const equal = {
    idempotency_key: query.idempotencyKey,
    request_id: query.requestId,
    user_id: query.userId,
    type: query.type,
  };
  for (const [column, value] of Object.entries(equal))
    if (value !== undefined) conditions.push(`${column} = ${bind(value)}`);
  if (query.receivedFrom !== undefined)
    conditions.push(`received_at >= make_timestamp_ms(${whole(query.receivedFrom)})`);
  if (query.receivedTo !== undefined) conditions.push(`received_at < make_timestamp_ms(${whole(query.receivedTo)})`);
  const where = conditions.join(' AND ');
  // Files of one log and one way of making keys have the same constants.
  const groups = Map.groupBy(
    wanted.map((file, i) => ({ file, path: paths[i] ?? '' })),
    ({ file }) => `${file.source_in_key} ${file.topic}`,
  );
  const parts = [...groups.values()].map((group) => {
    const [{ file } = { file: undefined }] = group;
    const own = [...(shards.get(file?.topic ?? '') ?? [])].map(
      ([partition, shard]) => `WHEN ${partition} THEN ${shard}`,
    );
    const shard = own.length === 0 ? '-1' : `CASE log_partition ${own.join(' ')} ELSE -1 END`;
    const keyed = file?.source_in_key === true ? 'source IS NOT NULL' : 'false';
    return `SELECT epoch_ms("timestamp") AS at_ms, epoch_ms(received_at) AS received_at, ${shard} AS shard, log_offset, tenant_id, customer_id,
        idempotency_key, source, ${keyed} AS keyed_by_source, type, user_id, request_id, data
      FROM ${filesOf(group.map((one) => one.path))} WHERE ${where}`;
  });
  const { after } = query;
  const past =
    after === undefined
      ? ''
      : ` WHERE (at_ms, shard, log_offset) < (${whole(after.at)}, ${whole(after.shard)}, ${whole(after.logOffset)})`;
  return { text: `SELECT * FROM (${parts.join(' UNION ALL ')})${past}`, values };
}

function toEvent(row: Record<string, DuckDBValue>): ArchivedEvent {
  const text = (name: string) => String(row[name] ?? '');
  const optional = (name: string) => (row[name] === null || row[name] === undefined ? null : String(row[name]));
  return {
    at: Number(row.at_ms),
    received_at: Number(row.received_at),
    shard: Number(row.shard),
    log_offset: Number(row.log_offset),
    tenant_id: text('tenant_id'),
    customer_id: text('customer_id'),
    idempotency_key: text('idempotency_key'),
    source: optional('source'),
    keyed_by_source: row.keyed_by_source === true,
    type: text('type'),
    user_id: optional('user_id'),
    request_id: optional('request_id'),
    data: text('data'),
  };
}
