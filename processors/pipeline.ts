/**
 * The story of one batch, top to bottom. Preparing changes memory only; committing is one transaction and
 * touches nothing that the next batch's preparation changes, so the next is prepared while the last commits.
 */
import type { ClientBase } from 'pg';
import { type Meter, TIME_TABLES } from '../schemas/index.ts';
import { BinaryCopy, copyInto, type LogSlice } from '../sinks/index.ts';
import type { ClaimStore } from './dedupe/index.ts';
import type { EventView } from './event-view.ts';
import { advance, type Ownership } from './ownership.ts';
import type { ProcessorDeps } from './ports.ts';
import { COPY_EVENTS, type RawEventWriter } from './raw-events.ts';
import { CardinalityGuard, type Overflow, writeOverflows } from './rollups/cardinality.ts';
import { loadRows } from './rollups/load-rows.ts';
import type { Rollups } from './rollups/rollups.ts';
import { encodeRollups, newRollupWrites, type RollupWrites, writeRollups } from './rollups/write-rows.ts';
import { type Account, createAccountStep, writeAccount, writeDeadLetters } from './steps/account.ts';
import { createAdmitStep } from './steps/admit.ts';
import { createApplyStep } from './steps/apply.ts';
import { createIdentifyStep, type Fault, type Identified } from './steps/identify.ts';
import { StoredEvents } from './stored-events.ts';
import type { Tenants } from './tenants.ts';
import {
  createWithdrawStep,
  lockBackfill,
  mendBackfilled,
  settleArrivals,
  type Withdrawn,
  writeArrivals,
  writeWithdrawals,
} from './withdraw/index.ts';

/** Buffers of a batch on its way; two take turns. */
export interface BatchBuffers {
  events: BinaryCopy;
  rollups: RollupWrites;
}
export const newBatchBuffers = (): BatchBuffers => ({ events: new BinaryCopy(1 << 20), rollups: newRollupWrites() });

/** A batch ready to be committed. */
export interface PreparedBatch {
  from: number;
  to: number;
  /** latest event time, Unix ms, or -Infinity */
  watermark: number;
  days: Set<number>;
  /** newly claimed keys, packed */
  claimed: Buffer;
  account: Account;
  buffers: BatchBuffers;
  /** groups that are counted together, by meter and tenant */
  overflows: readonly Overflow[];
  /** events that the batch withdraws; it is committed before the next one is prepared */
  withdrawn: { events: Withdrawn; arrived: { key: Uint8Array; at: number }[] } | undefined;
}

export interface PipelineDeps {
  own: Ownership;
  deps: ProcessorDeps;
  view: EventView;
  raw: RawEventWriter;
  tenants: Tenants;
  claims: ClaimStore;
  rollups: Rollups;
  meters: readonly Meter[];
  cuts: ReadonlyMap<number, number>;
  /** keys of withdrawn events that have not come yet */
  orphans: Set<string>;
  /** offsets that the database has refused before, and why */
  forced: ReadonlyMap<number, Fault>;
}

export function createPipeline(given: PipelineDeps) {
  const { own, deps, view, raw, tenants, claims, rollups, meters, orphans, forced } = given;
  const { pool, engine } = deps;
  const { shard } = own;
  const identify = createIdentifyStep({ view, tenants, forced });
  const admit = createAdmitStep({ tenants });
  const { apply, examine } = createApplyStep({ view, raw, tenants, shard });
  const withdraw = createWithdrawStep({ ...given, pool, shard, stored: new StoredEvents(view.names), examine });
  const account = createAccountStep({ tenants });
  const guard = new CardinalityGuard(deps.settings.groupsMax);
  let batch = 0;

  /** Everything up to the transaction; `from` is the commit point that it moves. After a throw, memory is ahead of the database: forget it all. */
  async function prepare(
    from: number,
    slice: LogSlice,
    buffers: BatchBuffers,
    settle: () => Promise<void>,
  ): Promise<PreparedBatch> {
    batch++;
    const found = identify(slice);
    await admit(found);
    const flags = await claims.claim(pool, found.keys, found.soundCount);
    const withdrawn = await withdraw(found, flags, batch, settle);
    const applied = await apply(found, flags, rollups, buffers.events, batch, withdrawn?.uncounted ?? null);
    const claimed = packKeys(found.keys, applied.applied, found.soundCount, applied.accepted);
    claims.add(claimed, applied.accepted);
    const accounted = account(found, applied);
    const overflows = await guard.fold(rollups, pool, settle);
    const cold = rollups.touched.filter((row) => !row.based);
    if (cold.length > 0) {
      const minutes = cold.filter((row) => !row.isHour);
      const hours = cold.filter((row) => row.isHour);
      await loadRows(pool, shard, 'rollups_minute', minutes);
      await loadRows(pool, shard, 'rollups_hour', hours);
    }
    encodeRollups(rollups, shard, slice.nextOffset, buffers.rollups);
    return {
      from,
      to: slice.nextOffset,
      watermark: applied.watermark,
      days: applied.days,
      claimed,
      account: accounted,
      buffers,
      overflows,
      withdrawn: withdrawn && { events: withdrawn, arrived: arrivals(found, withdrawn, applied.applied) },
    };
  }

  /** Which withdrawn events have come with the batch. */
  function arrivals(found: Identified, withdrawn: Withdrawn, applied: Uint8Array) {
    const { slice } = found;
    const timeOf = (sound: number) => {
      const i = found.sound[sound] as number;
      view.open(slice.bytes, i === 0 ? 0 : (slice.ends[i - 1] as number), slice.ends[i] as number);
      view.decode();
      return view.timestamp;
    };
    return settleArrivals(withdrawn, applied, orphans, timeOf);
  }

  /** The steps of one transaction. @throws {Fenced} and whatever PostgreSQL says; nothing is changed then */
  async function commit(client: ClientBase, prepared: PreparedBatch): Promise<void> {
    const { buffers } = prepared;
    deps.fault?.('prepared');
    await engine.ensureChunks(client, TIME_TABLES.events, prepared.days);
    await engine.ensureChunks(client, TIME_TABLES.rollups_minute, buffers.rollups.minutes);
    await engine.ensureChunks(client, TIME_TABLES.members_minute, buffers.rollups.minutes);
    await engine.ensureChunks(client, TIME_TABLES.rollups_hour, buffers.rollups.hours);
    await engine.ensureChunks(client, TIME_TABLES.members_hour, buffers.rollups.hours);
    await client.query('BEGIN');
    deps.fault?.('begun');
    await advance(client, own, prepared.from, prepared.to, prepared.watermark);
    deps.fault?.('fenced');
    const { withdrawn } = prepared;
    const backfilled =
      withdrawn === undefined ? [] : await lockBackfill(client, shard, withdrawn.events.backfilled, meters);
    await claims.persist(client, prepared.to, prepared.claimed);
    deps.fault?.('claimed');
    if (buffers.events.rows > 0) await copyInto(client, COPY_EVENTS, buffers.events.finish());
    deps.fault?.('raw');
    await writeRollups(client, shard, buffers.rollups);
    await writeOverflows(client, shard, prepared.overflows);
    if (withdrawn !== undefined) {
      await writeWithdrawals(client, shard, withdrawn.events.withdrawals);
      await writeArrivals(client, shard, withdrawn.arrived);
      await mendBackfilled(client, backfilled, withdrawn.events.backfilled, deps.settings.groupsMax);
      deps.fault?.('withdrawn');
    }
    deps.fault?.('rolled-up');
    await writeAccount(client, shard, prepared.account);
    deps.fault?.('accounted');
    await writeDeadLetters(client, shard, prepared.account.deadLetters);
    deps.fault?.('dead-lettered');
    await client.query('COMMIT');
    deps.fault?.('committed');
  }

  return { prepare, commit };
}

function packKeys(keys: Buffer, applied: Uint8Array, count: number, accepted: number): Buffer {
  const packed = Buffer.allocUnsafe(accepted * 16);
  let at = 0;
  for (let s = 0; s < count; s++) {
    if (applied[s] !== 1) continue;
    for (let b = s * 16; b < s * 16 + 16; b++) packed[at++] = keys[b] as number;
  }
  return packed;
}
