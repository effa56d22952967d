import type { ClientBase } from 'pg';
import { type Meter, TIME_TABLES } from '../../schemas/index.ts';
import type { StorageEngine } from '../../sinks/index.ts';
import { AttributeNames } from '../event-view.ts';
import { CardinalityGuard, writeOverflows } from '../rollups/cardinality.ts';
import { meterAttributes } from '../rollups/compile.ts';
import { HOUR, type KnownTenant, Rollups } from '../rollups/rollups.ts';
import { encodeRollups, newRollupWrites, writeRollups } from '../rollups/write-rows.ts';
import { StoredEvents } from '../stored-events.ts';

/** A version of a meter on one shard: what is still to be counted of its past. */
export interface Cut {
  meter: Meter;
  shard: number;
  /** first offset that is counted live */
  cut: number;
  /** Unix ms; -Infinity before the first step */
  backfilledUntil: number;
  /** the shard that its rows carry */
  twin: number;
  /** groups of a tenant beyond which further ones are counted together */
  groupsMax: number;
}

/** Another process is at work on the same cut: leave it. */
export class Overtaken extends Error {
  override name = 'Overtaken';
}

const LOCK = `
  SELECT CASE WHEN isfinite(backfilled_until) THEN (extract(epoch FROM backfilled_until) * 1000)::float8 ELSE '-infinity'::float8 END AS until
  FROM meter_cuts WHERE meter_id = $1 AND shard = $2 FOR UPDATE`;
const ADVANCE = 'UPDATE meter_cuts SET backfilled_until = $3, events = events + $4 WHERE meter_id = $1 AND shard = $2';

/**
 * Counts one hour of the past in one transaction: the raw events of the shard below the cut, which no one adds to any
 * more, become minute and hour rows of its twin, and the mark moves behind them. The mark's lock keeps withdrawals
 * out: they wait for it, then mend what was written (see `withdraw/`).
 * @param from start of the hour, Unix ms; at or after the mark
 * @returns events counted
 * @throws {Overtaken}
 */
export async function backfillHour(
  client: ClientBase,
  engine: StorageEngine,
  cut: Cut,
  from: number,
): Promise<{ events: number }> {
  const { meter, shard, twin } = cut;
  await engine.ensureChunks(client, TIME_TABLES.rollups_minute, [from]);
  await engine.ensureChunks(client, TIME_TABLES.rollups_hour, [from]);
  await engine.ensureChunks(client, TIME_TABLES.members_minute, [from]);
  await engine.ensureChunks(client, TIME_TABLES.members_hour, [from]);
  await client.query('BEGIN');
  const { rows } = await client.query<{ until: number }>(LOCK, [meter.id, shard]);
  if (rows[0]?.until !== cut.backfilledUntil)
    throw new Overtaken(`meter ${meter.id}, shard ${shard}: the mark has moved`);
  const { rollups, events } = await countStored(client, cut, from, from + HOUR);
  const writes = newRollupWrites();
  encodeRollups(rollups, twin, 0, writes);
  await writeRollups(client, twin, writes);
  await client.query(ADVANCE, [meter.id, shard, new Date(from + HOUR), events]);
  await client.query('COMMIT');
  return { events };
}

/** Counts the stored events of [from, to) that belong to the past of a cut, of all tenants or one, within a transaction. */
export async function countStored(
  client: ClientBase,
  { meter, shard, cut, twin, groupsMax }: Cut,
  from: number,
  to: number,
  tenantId?: string,
): Promise<{ rollups: Rollups; events: number }> {
  const names = new AttributeNames(meterAttributes([meter]));
  const rollups = new Rollups([meter], names, {
    watermark: Number.NEGATIVE_INFINITY,
    foldedUntil: Number.POSITIVE_INFINITY,
    empty: true,
  });
  const stored = new StoredEvents(names);
  const tenants = new Map<string, KnownTenant>();
  const scope = tenantId ?? meter.tenantId;
  let events = 0;
  await stored.read(
    client,
    (bind) =>
      [
        `e.shard = ${bind(shard, 'int')}`,
        `e."timestamp" >= ${bind(new Date(from), 'timestamptz')}`,
        `e."timestamp" < ${bind(new Date(to), 'timestamptz')}`,
        `e.log_offset < ${bind(cut, 'bigint')}`,
        ...(meter.eventType === '*' ? [] : [`e.type = ${bind(meter.eventType, 'text')}`]),
        ...(scope === undefined ? [] : [`e.tenant_id = ${bind(scope, 'uuid')}`]),
      ].join(' AND '),
    (one) => {
      const name = one.tenantId.toString('latin1');
      let tenant = tenants.get(name);
      if (tenant === undefined) {
        tenant = { index: tenants.size, id: one.tenantId };
        tenants.set(name, tenant);
      }
      rollups.observe(stored.view, tenant, one.key, 0, 0);
      events++;
    },
  );
  // Groups that are counted live already stay apart; who is beyond is told as by the owner.
  const overflows = await new CardinalityGuard(groupsMax).fold(rollups, client, async () => undefined);
  await writeOverflows(client, twin, overflows);
  return { rollups, events };
}
