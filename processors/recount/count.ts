import type { ClientBase, Pool } from 'pg';
import { type Meter, type RawEventRow, VOID_TYPE } from '../../schemas/index.ts';
import type { ArchivedDay } from '../archived-events.ts';
import { AttributeNames } from '../event-view.ts';
import { meterAttributes } from '../rollups/compile.ts';
import { type KnownTenant, Rollups } from '../rollups/rollups.ts';
import { type Stored, StoredEvents } from '../stored-events.ts';
import { dateOf } from '../utc-day.ts';

/** What one meter counts of one shard, and whose rows that becomes. Times are Unix ms. */
export interface Share {
  meter: Meter;
  /** whose events */
  shard: number;
  /** offsets of its log, [first, end) */
  first: number;
  end: number;
  /** events from here on are not counted */
  until: number;
  /** the shard that the rows carry */
  rowShard: number;
  /** hours before have hour rows */
  foldedUntil: number;
}

export interface Stretch {
  from: number;
  to: number;
  /** minutes of this day are not kept */
  hoursOnly: boolean;
  /** only events of this tenant, UUID */
  tenantId?: string | undefined;
  /** rows that may be in memory */
  mostRows?: number;
}

/** More rows than may be in memory: count a shorter stretch, or fewer meters. */
export class TooMuch extends Error {
  override name = 'TooMuch';
}

/** Events between two looks at the memory. */
const LOOK = 200;

/** One share, counted. */
export interface Counted<S extends Share = Share> {
  share: S;
  rollups: Rollups;
  events: number;
}

/** Counts raw events of a stretch for several meters at once, wherever the events are: each is read once. */
export class Recount<S extends Share> {
  readonly counted: readonly Counted<S>[];
  readonly #byShard: ReadonlyMap<number, Counted<S>[]>;
  readonly #stretch: Stretch;
  readonly #stored: StoredEvents;
  readonly #tenants = new Map<string, KnownTenant>();
  #seen = 0;

  constructor(shares: readonly S[], stretch: Stretch) {
    this.#stretch = stretch;
    const names = new AttributeNames(meterAttributes(shares.map((share) => share.meter)));
    this.#stored = new StoredEvents(names);
    this.counted = shares.map((share) => ({
      share,
      rollups: new Rollups([share.meter], names, {
        watermark: Number.NEGATIVE_INFINITY,
        foldedUntil: share.foldedUntil,
        empty: true,
        hoursOnly: stretch.hoursOnly,
      }),
      events: 0,
    }));
    this.#byShard = Map.groupBy(this.counted, ({ share }) => share.shard);
  }

  /** @param leftOut see `leftOutOf` @throws {TooMuch} | TidemarkError `archive_frozen`, `archive_damaged` */
  async readArchived(day: ArchivedDay, leftOut: ReadonlySet<string>): Promise<void> {
    const { from, to } = this.#stretch;
    const { tenants, types } = scopeOf(this.counted, this.#stretch);
    const type = types?.length === 1 ? types[0] : undefined;
    for await (const events of day.read({ from, to, tenantIds: tenants, type }))
      for (const event of events) this.#takeArchived(event, leftOut);
  }

  #takeArchived(event: RawEventRow, leftOut: ReadonlySet<string>): void {
    if (event.type === VOID_TYPE || !this.#byShard.has(event.shard)) return;
    if (leftOut.has(`${event.shard} ${event.key}`) || leftOut.has(event.tenant_id)) return;
    this.#take(this.#stored.openArchived(event));
  }

  /**
   * What of a shard is in the database and not in the archive, as one snapshot has it.
   * @param client in a transaction
   * @throws {TooMuch}
   */
  async readStored(client: ClientBase, shard: number): Promise<void> {
    const own = this.#byShard.get(shard) ?? [];
    const { from, to } = this.#stretch;
    const { tenants, types } = scopeOf(own, this.#stretch);
    await this.#stored.read(
      client,
      (bind) =>
        [
          `e.shard = ${bind(shard, 'int')}`,
          `e."timestamp" >= ${bind(new Date(from), 'timestamptz')}`,
          `e."timestamp" < ${bind(new Date(to), 'timestamptz')}`,
          `e.log_offset < ${bind(Math.max(...own.map(({ share }) => share.end)), 'bigint')}`,
          // A chunk that late events brought back may hold what is archived already.
          `e.log_offset >= coalesce((SELECT a.next FROM archive_positions AS a WHERE a.shard = ${bind(shard, 'int')} AND a.day = ${bind(dateOf(from), 'date')}), 0)`,
          ...(types === null ? [] : [`e.type = ANY (${bind(types, 'text[]')})`]),
          ...(tenants === null ? [] : [`e.tenant_id = ANY (${bind(tenants, 'uuid[]')})`]),
        ].join(' AND '),
      (one) => this.#take(one),
    );
  }

  #take(one: Stored): void {
    const { view } = this.#stored;
    const name = one.tenantId.toString('latin1');
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) {
      tenant = { index: this.#tenants.size, id: one.tenantId };
      this.#tenants.set(name, tenant);
    }
    for (const counted of this.#byShard.get(one.shard) ?? []) {
      const { share, rollups } = counted;
      if (one.offset < share.first || one.offset >= share.end || view.timestamp >= share.until) continue;
      rollups.observe(view, tenant, one.key, 0, 0);
      if (share.meter.eventType === '*' || share.meter.eventType === one.type) counted.events++;
    }
    if (++this.#seen % LOOK === 0) this.#look();
  }

  #look(): void {
    const { mostRows = Number.POSITIVE_INFINITY } = this.#stretch;
    const rows = this.counted.reduce((sum, { rollups }) => sum + rollups.weight, 0);
    if (rows > mostRows) throw new TooMuch(`${Math.round(rows)} rows`);
  }
}

/** What all of them are limited to; null: not limited. */
function scopeOf(counted: readonly Counted[], { tenantId }: Stretch) {
  const meters = counted.map(({ share }) => share.meter);
  const tenants = tenantId === undefined ? distinct(meters.map((meter) => meter.tenantId)) : [tenantId];
  return { tenants, types: distinct(meters.map(({ eventType }) => (eventType === '*' ? undefined : eventType))) };
}

const distinct = (values: readonly (string | undefined)[]): string[] | null => {
  const known = values.filter((value) => value !== undefined);
  return known.length < values.length ? null : [...new Set(known)];
};

/** Whether the minutes of a day have gone with its raw events. */
export async function isHoursOnly(database: Pool | ClientBase, day: number): Promise<boolean> {
  const { rows } = await database.query('SELECT FROM archived_minutes WHERE day = $1', [dateOf(day)]);
  return rows.length > 0;
}

/**
 * What of the archive counts no more: withdrawn events of these shards and this stretch, as `shard key`, and tenants that
 * were purged (files of the archive hold all tenants), as UUIDs.
 */
export async function leftOutOf(
  database: Pool | ClientBase,
  shards: readonly number[],
  { from, to }: { from: number; to: number },
): Promise<Set<string>> {
  const { rows } = await database.query<{ name: string }>(
    `SELECT shard || ' ' || key AS name FROM withdrawals
     WHERE shard = ANY ($1) AND (event_at IS NULL OR (event_at >= $2 AND event_at < $3))
     UNION SELECT id::text FROM tenants WHERE purged_at IS NOT NULL ORDER BY 1`,
    [shards, new Date(from), new Date(to)],
  );
  return new Set(rows.map((row) => row.name));
}
