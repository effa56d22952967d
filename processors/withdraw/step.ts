/**
 * Between claiming and applying: what this batch withdraws is taken out of the rollups in memory. The cells that a
 * withdrawn event was counted in are cleared and counted anew from raw events, so that every aggregation is exact,
 * whether it could be undone or not.
 */
import type { Pool } from 'pg';
import { type Meter, uuidOf } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import type { ClaimStore } from '../dedupe/index.ts';
import type { EventView } from '../event-view.ts';
import { isHoursOnly } from '../recount/count.ts';
import { type Cell, HOUR, type KnownTenant, MINUTE, type Rollups } from '../rollups/rollups.ts';
import { type Fault, type Identified, promote } from '../steps/identify.ts';
import type { Stored, StoredEvents } from '../stored-events.ts';
import type { Tenants } from '../tenants.ts';
import { startOfDay } from '../utc-day.ts';
import { createCollect } from './collect.ts';
import { checkCells, type Place } from './mend.ts';
import { keyText, type Withdrawal } from './withdrawal.ts';

/** What a batch withdraws. */
export interface Withdrawn {
  withdrawals: Withdrawal[];
  /** of each sound record: 1 when it stands in the raw events but is not counted */
  uncounted: Uint8Array | null;
  /** withdrawn events that come with this batch, by key: their sound records, duplicates too */
  arriving: Map<string, { sounds: number[]; withdrawals: readonly Withdrawal[] }>;
  /** hours that the backfill counted withdrawn events in */
  backfilled: Place[];
}

export interface WithdrawDeps {
  pool: Pool;
  shard: number;
  view: EventView;
  stored: StoredEvents;
  tenants: Tenants;
  claims: ClaimStore;
  rollups: Rollups;
  meters: readonly Meter[];
  /** first offset that a meter counts live, by id; absent: all */
  cuts: ReadonlyMap<number, number>;
  /** withdrawn events that have not come yet, by key */
  orphans: Set<string>;
  examine(found: Identified, i: number, sound: number): Fault | undefined;
}

const KNOWN = `
  SELECT encode(uuid_send(key), 'hex') AS key, bool_or(action = 'replace') AS replaced, (extract(epoch FROM max(event_at)) * 1000)::float8 AS at
  FROM withdrawals WHERE shard = $1 AND key = ANY ($2::uuid[]) GROUP BY 1`;

/** A withdrawn event in the raw events: where it was counted. */
interface Found {
  withdrawal: Withdrawal;
  tenantId: Uint8Array;
  offset: number;
  at: number;
  /** meters that count it */
  meters: number[];
}

const sameKey = (a: Withdrawal, b: Withdrawal) => Buffer.compare(a.target, b.target) === 0;

/** A cell that is counted anew, and why. */
interface MendedCell extends Cell {
  tenant: KnownTenant;
  withdrawn: Withdrawal[];
}

export function createWithdrawStep(deps: WithdrawDeps) {
  const { pool, shard, stored, claims, rollups, meters, cuts, orphans } = deps;
  const collect = createCollect(deps);

  /**
   * @param settle waits for the commit in flight: raw events and rollups must be read as they are before this batch
   * @throws {RawIncomplete} a cell can't be counted anew
   */
  return async function withdraw(
    found: Identified,
    claimed: Uint8Array,
    batch: number,
    settle: () => Promise<void>,
  ): Promise<Withdrawn | undefined> {
    const collected = collect(found);
    if (collected.size === 0 && orphans.size === 0) return undefined;
    const result: Withdrawn = { withdrawals: [], uncounted: null, arriving: new Map(), backfilled: [] };
    if (collected.size > 0) await settle();
    // Out already, or waited for: nothing is to be taken out.
    const done = new Set<Withdrawal>();
    result.withdrawals = await admit(found, claimed, collected, done);
    findArriving(found, claimed, result, done);
    await takeOut(found, claimed, result, done, batch);
    return result.withdrawals.length === 0 && result.arriving.size === 0 ? undefined : result;
  };

  /** An event is replaced once, and not by itself; what else would is refused. */
  async function admit(
    found: Identified,
    claimed: Uint8Array,
    collected: ReadonlyMap<number, Withdrawal>,
    done: Set<Withdrawal>,
  ): Promise<Withdrawal[]> {
    const admitted: Withdrawal[] = [];
    if (collected.size === 0) return admitted;
    const { rows } = await pool.query<{ key: string; replaced: boolean; at: number | null }>(KNOWN, [
      shard,
      [...collected.values()].map((one) => uuidOf(one.target)),
    ]);
    const known = new Map(rows.map((row) => [Buffer.from(row.key, 'hex').toString('latin1'), row]));
    const replaced = new Set([...known].filter(([, row]) => row.replaced).map(([key]) => key));
    // In the order of the log; a refused record lets its next duplicate try.
    for (const [sound, one] of collected) {
      if (claimed[sound] !== 1) continue;
      const key = keyText(one.target);
      const refusal = one.action === 'replace' ? refusalOf(one, replaced.has(key)) : undefined;
      if (refusal !== undefined) {
        refuse(found, claimed, one, refusal);
        promote(found, claimed, sound);
        continue;
      }
      if (one.action === 'replace') replaced.add(key);
      const before = known.get(key);
      if (before !== undefined) {
        one.eventAt = before.at;
        done.add(one);
      }
      admitted.push(one);
    }
    return admitted;
  }

  function refusalOf(one: Withdrawal, replacedBefore: boolean): Fault | undefined {
    if (Buffer.compare(one.target, one.by) === 0)
      return { reason: 'invalid_field', detail: 'replaces: an event can not replace itself' };
    if (!replacedBefore) return undefined;
    const detail = `${one.idempotencyKey} was replaced before: replace its replacement`;
    return { reason: 'already_replaced', detail };
  }

  function refuse(found: Identified, claimed: Uint8Array, one: Withdrawal, fault: Fault): void {
    found.faults.set(found.sound[one.sound] as number, fault);
    claimed[one.sound] = 0;
  }

  /** Withdrawn events in this very batch, and those that withdrawals of earlier batches wait for. */
  function findArriving(found: Identified, claimed: Uint8Array, result: Withdrawn, done: Set<Withdrawal>): void {
    const waited = new Map<string, Withdrawal[]>([...orphans].map((key) => [key, []]));
    for (const one of result.withdrawals) {
      const key = keyText(one.target);
      waited.set(key, [...(waited.get(key) ?? []), one]);
    }
    if (waited.size === 0) return;
    for (let s = 0; s < found.soundCount; s++) {
      const key = keyText(found.keys, s * 16);
      const withdrawals = waited.get(key);
      if (withdrawals === undefined) continue;
      result.uncounted ??= new Uint8Array(found.soundCount);
      result.uncounted[s] = 1;
      const arriving = result.arriving.get(key);
      if (arriving !== undefined) arriving.sounds.push(s);
      // A key that was claimed before this batch has come before.
      else if (claimed[s] === 1) {
        result.arriving.set(key, { sounds: [s], withdrawals });
        for (const one of withdrawals) done.add(one);
      }
    }
  }

  async function takeOut(
    found: Identified,
    claimed: Uint8Array,
    result: Withdrawn,
    done: ReadonlySet<Withdrawal>,
    batch: number,
  ): Promise<void> {
    const open = result.withdrawals.filter((one) => !done.has(one));
    // The second withdrawal of one batch finds the event out.
    const first = [...new Map(open.toReversed().map((one) => [keyText(one.target), one])).values()];
    if (first.length === 0) return;
    const events = await findStored(first);
    for (const one of events) for (const other of open) if (sameKey(other, one.withdrawal)) other.eventAt = one.at;
    await refuseMissing(found, claimed, result, open);
    const cells = new Map<string, MendedCell>();
    const hoursOnly = await daysWithoutMinutes(pool, events);
    for (const one of events)
      for (const meterId of one.meters) {
        const minute = Math.floor(one.at / MINUTE) * MINUTE;
        const hour = Math.floor(one.at / HOUR) * HOUR;
        if (one.offset < (cuts.get(meterId) ?? 0)) {
          result.backfilled.push({ meterId, tenantId: one.tenantId, hour, offset: one.withdrawal.offset });
          continue;
        }
        for (const [bucket, isHour] of minute < rollups.foldedUntil
          ? ([[hour, true], ...(hoursOnly.has(startOfDay(one.at)) ? [] : ([[minute, false]] as const))] as const)
          : ([[minute, false]] as const)) {
          const key = `${meterId} ${keyText(one.tenantId)} ${bucket} ${isHour}`;
          const cell = cells.get(key) ?? {
            meterId,
            tenantId: one.tenantId,
            tenant: one.withdrawal.tenant,
            bucket,
            isHour,
            withdrawn: [],
          };
          cell.withdrawn.push(one.withdrawal);
          cells.set(key, cell);
        }
      }
    const all = [...cells.values()];
    rollups.clear(all);
    const gone = new Set(result.withdrawals.map((one) => keyText(one.target)));
    await recount(all, gone, batch);
    await checkCells(pool, shard, rollups, meters, all);
  }

  async function findStored(withdrawals: readonly Withdrawal[]): Promise<Found[]> {
    const byKey = new Map(withdrawals.map((one) => [keyText(one.target), one]));
    const hints = withdrawals.flatMap((one) => (one.hint === null ? [] : [one.hint]));
    const found: Found[] = [];
    await withTransaction(pool, (client) =>
      stored.read(
        client,
        (bind) =>
          [
            `e.shard = ${bind(shard, 'int')}`,
            `e.key = ANY (${bind(
              withdrawals.map((one) => uuidOf(one.target)),
              'uuid[]',
            )})`,
            ...(hints.length < withdrawals.length
              ? []
              : [
                  `e."timestamp" >= ${bind(new Date(Math.min(...hints)), 'timestamptz')}`,
                  `e."timestamp" <= ${bind(new Date(Math.max(...hints)), 'timestamptz')}`,
                ]),
          ].join(' AND '),
        (one) => {
          const withdrawal = byKey.get(keyText(one.key));
          if (withdrawal === undefined) return;
          const { timestamp: at } = stored.view;
          const meters = rollups.countedBy(stored.view, withdrawal.tenant);
          found.push({ withdrawal, tenantId: one.tenantId, offset: one.offset, at, meters });
        },
      ),
    );
    return found;
  }

  /** An event that was accepted once, but whose raw row is gone, can't be taken out; one that never came is waited for. */
  async function refuseMissing(
    found: Identified,
    claimed: Uint8Array,
    result: Withdrawn,
    open: readonly Withdrawal[],
  ): Promise<void> {
    const missing = open.filter((one) => one.eventAt === null);
    if (missing.length === 0) return;
    const fresh = await claims.claim(pool, Buffer.concat(missing.map((one) => one.target)), missing.length);
    const unknown = new Set<string>();
    missing.forEach((one, i) => {
      if (fresh[i] === 1) unknown.add(keyText(one.target));
    });
    for (const one of missing) {
      if (unknown.has(keyText(one.target))) {
        orphans.add(keyText(one.target));
        continue;
      }
      refuse(found, claimed, one, {
        reason: 'event_archived',
        detail: `${one.idempotencyKey} is not among the raw events any more: recall its day first`,
      });
      result.withdrawals = result.withdrawals.filter((other) => other !== one);
    }
  }

  /** Counts the cleared cells anew: a tenant's minute, or its whole hour where that is folded. */
  async function recount(cells: readonly MendedCell[], gone: ReadonlySet<string>, batch: number): Promise<void> {
    const spans = new Map<string, { tenant: KnownTenant; from: number; to: number }>();
    for (const { tenant, bucket, isHour } of cells)
      spans.set(`${keyText(tenant.id)} ${bucket} ${isHour}`, {
        tenant,
        from: bucket,
        to: bucket + (isHour ? HOUR : MINUTE),
      });
    for (const [key, span] of spans)
      if (
        span.to - span.from === MINUTE &&
        spans.has(`${keyText(span.tenant.id)} ${span.from - (span.from % HOUR)} true`)
      )
        spans.delete(key);
    for (const { tenant, from, to } of spans.values()) {
      const take = (one: Stored) => {
        if (gone.has(keyText(one.key))) return;
        rollups.replay(stored.view, tenant, one.key, batch, (meterId) => one.offset >= (cuts.get(meterId) ?? 0));
      };
      await withTransaction(pool, (client) =>
        stored.read(
          client,
          (bind) =>
            [
              `e.shard = ${bind(shard, 'int')}`,
              `e.tenant_id = ${bind(uuidOf(tenant.id), 'uuid')}`,
              `e."timestamp" >= ${bind(new Date(from), 'timestamptz')}`,
              `e."timestamp" < ${bind(new Date(to), 'timestamptz')}`,
            ].join(' AND '),
          take,
        ),
      );
    }
  }
}

/** Days of these events whose minutes have gone: what came late has some again, which nobody reads. */
async function daysWithoutMinutes(pool: Pool, events: readonly Found[]): Promise<Set<number>> {
  const days = new Set(events.map((one) => startOfDay(one.at)));
  for (const day of days) if (!(await isHoursOnly(pool, day))) days.delete(day);
  return days;
}

/** After applying: which withdrawn events came with the batch, and when they were; the rest is waited for. */
export function settleArrivals(
  withdrawn: Withdrawn,
  applied: Uint8Array,
  orphans: Set<string>,
  timeOf: (sound: number) => number,
): { key: Uint8Array; at: number }[] {
  const arrived: { key: Uint8Array; at: number }[] = [];
  for (const [key, { sounds, withdrawals }] of withdrawn.arriving) {
    const sound = sounds.find((one) => applied[one] === 1);
    if (sound === undefined) {
      orphans.add(key);
      continue;
    }
    const at = timeOf(sound);
    for (const one of withdrawals) one.eventAt = at;
    arrived.push({ key: Buffer.from(key, 'latin1'), at });
    orphans.delete(key);
  }
  return arrived;
}
