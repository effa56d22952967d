import type { ClientBase, PoolClient } from 'pg';
import { type Meter, TIME_TABLES } from '../schemas/index.ts';
import { type AssignedPartition, type LogSlice, pause } from '../sinks/index.ts';
import { type ClaimStore, type FilterBudget, openKeySet } from './dedupe/index.ts';
import { adoptDefinitions, type DefinitionWatch } from './definitions.ts';
import { AttributeNames, EventView } from './event-view.ts';
import { acquire, advanceFold, confirm, type Ownership } from './ownership.ts';
import { type BatchBuffers, createPipeline, newBatchBuffers, type PreparedBatch } from './pipeline.ts';
import { Fenced, Forgotten, type ProcessorDeps, type ProcessorMetrics } from './ports.ts';
import { RawEventWriter } from './raw-events.ts';
import { CoarseKeeper } from './rollups/coarse-keeper.ts';
import { attributeNamesOf } from './rollups/compile.ts';
import { foldHours, HOURS_TO_FOLD } from './rollups/fold-hours.ts';
import { HOUR, Rollups } from './rollups/rollups.ts';
import { CREATE_STAGING } from './rollups/write-rows.ts';
import type { Fault } from './steps/identify.ts';
import { Tenants } from './tenants.ts';
import { RawIncomplete, readOrphans, WITHDRAWAL_ATTRIBUTES } from './withdraw/index.ts';

/** How long after an hour's end (event time) its minutes are folded: most late events are in by then. */
const FOLD_GRACE_MS = 10 * 60_000;
const READ_WAIT_MS = 250;
const BACKOFF_MS = [10, 50, 250, 1_000, 5_000];
/** Time that a maintenance step of the key set may hold up the stream. */
const MAINTENANCE_BUDGET_MS = 50;
/** A refused batch is halved until the record at fault stands alone. */
const DATA_ERRORS = /^(22|54|23502|23514)/;

/** What depends on the meters that are counted. */
interface Counting {
  revision: string;
  meters: readonly Meter[];
  rollups: Rollups;
  pipeline: ReturnType<typeof createPipeline>;
}

interface Owned extends Counting {
  own: Ownership;
  next: number;
  claims: ClaimStore;
  coarse: CoarseKeeper;
  buffers: [BatchBuffers, BatchBuffers];
}

/** What all owners of a process share. */
export interface Shared {
  budget: FilterBudget;
  metrics: ProcessorMetrics;
  watch: DefinitionWatch;
}

/** Owns one partition for as long as it is assigned: reads, prepares, commits, folds; starts over from the database after a failure. */
export class PartitionOwner {
  readonly #deps: ProcessorDeps;
  readonly #partition: AssignedPartition;
  readonly #budget: FilterBudget;
  readonly #metrics: ProcessorMetrics;
  readonly #watch: DefinitionWatch;
  #tenants: Tenants;
  readonly #forced = new Map<number, Fault>();
  /** meters and tenants whose overflow was logged */
  readonly #toldOf = new Set<string>();
  #limit: number;
  #failures = 0;
  /** whether the failure, if there is one, is the batch's own */
  #inMaintenance = false;

  constructor(deps: ProcessorDeps, partition: AssignedPartition, { budget, metrics, watch }: Shared) {
    this.#deps = deps;
    this.#partition = partition;
    this.#budget = budget;
    this.#metrics = metrics;
    this.#watch = watch;
    this.#tenants = new Tenants(deps.directory, deps.settings.unknownTenants);
    this.#limit = deps.settings.batchEvents;
  }

  /** Runs until the partition is revoked. */
  async run(): Promise<void> {
    const { revoked } = this.#partition;
    while (!revoked.aborted) {
      let client: PoolClient | undefined;
      let broken: Error | undefined;
      try {
        client = await this.#deps.pool.connect();
        await client.query(CREATE_STAGING);
        const owned = await this.#own();
        try {
          await this.#process(client, owned);
        } finally {
          owned.claims.close();
        }
      } catch (error) {
        broken = error instanceof Error ? error : new Error(String(error));
        if (error instanceof Fenced) {
          this.#deps.logger.warn({ partition: this.#partition.partition }, error.message);
          return;
        }
        if (error instanceof Forgotten) this.#forget(error);
        else await this.#recover(broken);
      } finally {
        // A connection with an open transaction or a lost server is thrown away, never lent again.
        client?.release(broken);
      }
    }
  }

  async #own(): Promise<Owned> {
    const { pool, settings, log, now } = this.#deps;
    const own = await acquire(pool, log.topic, this.#partition.partition);
    const claims = await openKeySet(pool, own.shard, {
      sealKeys: settings.dedupeSealKeys,
      windowMs: settings.windowMs,
      budget: this.#budget,
      now,
    });
    const counting = await this.#count(own, own.next, claims, own);
    const coarse = new CoarseKeeper(this.#deps, own);
    this.#partition.seek(own.next);
    this.#deps.logger.info(
      { partition: own.partition, shard: own.shard, epoch: own.epoch, next: own.next },
      'partition owned',
    );
    return { own, next: own.next, ...counting, claims, coarse, buffers: [newBatchBuffers(), newBatchBuffers()] };
  }

  /** Counts from `next` on by the definitions that stand in the database now. */
  async #count(
    own: Ownership,
    next: number,
    claims: ClaimStore,
    state: { watermark: number; foldedUntil: number },
  ): Promise<Counting> {
    const { pool, settings, now } = this.#deps;
    const { meters, revision, cuts } = await adoptDefinitions(pool, own, next, this.#deps.meters);
    const orphans = await readOrphans(pool, own.shard, now() - settings.windowMs);
    const names = new AttributeNames([...attributeNamesOf(meters), ...WITHDRAWAL_ATTRIBUTES]);
    const rollups = new Rollups(meters, names, state);
    const pipeline = createPipeline({
      own,
      deps: this.#deps,
      view: new EventView(names),
      raw: new RawEventWriter(names),
      tenants: this.#tenants,
      claims,
      rollups,
      meters,
      cuts,
      orphans,
      forced: this.#forced,
    });
    return { revision, meters, rollups, pipeline };
  }

  async #process(client: PoolClient, owned: Owned): Promise<void> {
    const { revoked } = this.#partition;
    const { settings } = this.#deps;
    let inFlight: Promise<void> | undefined;
    let turn: 0 | 1 = 0;
    let started = 0;
    let full = false;
    let heard = this.#watch.revision;
    try {
      while (!revoked.aborted) {
        if (this.#watch.revision !== heard) {
          heard = this.#watch.revision;
          if (heard !== owned.revision) {
            await inFlight;
            inFlight = undefined;
            Object.assign(owned, await this.#count(owned.own, owned.next, owned.claims, owned.rollups));
            this.#deps.logger.info({ partition: owned.own.partition, from: owned.next }, 'meters changed');
          }
        }
        if (!full) await pause(started + settings.lingerMs - performance.now(), revoked);
        const slice = await this.#partition.read({ records: this.#limit, bytes: settings.batchBytes }, READ_WAIT_MS);
        if (slice === undefined) {
          // Nothing follows that would find out whether the last batch failed.
          await inFlight;
          inFlight = undefined;
          full = false;
          // The best time for what late events have left to do.
          if (owned.coarse.isDue(owned.rollups.foldedUntil)) {
            this.#inMaintenance = true;
            await owned.coarse.step(client, owned.rollups.foldedUntil, owned.meters);
            this.#inMaintenance = false;
          }
          continue;
        }
        started = performance.now();
        full = slice.count >= this.#limit || slice.bytes.length >= settings.batchBytes / 2;
        this.#deps.fault?.('read');
        const prepared = await this.#prepare(owned, slice, owned.buffers[turn], async () => {
          await inFlight;
        });
        await inFlight;
        inFlight = undefined;
        inFlight = this.#commit(client, owned, prepared);
        // Awaited below; a failure that comes before is no unhandled rejection.
        inFlight.catch(() => undefined);
        turn = turn === 0 ? 1 : 0;
        // The next batch must find what this one deletes gone.
        if (prepared.withdrawn !== undefined) await inFlight;
        if (this.#isDue(owned, prepared.watermark)) {
          await inFlight;
          inFlight = undefined;
          this.#inMaintenance = true;
          await this.#maintain(client, owned, prepared.watermark);
          this.#inMaintenance = false;
        }
      }
    } finally {
      await inFlight;
    }
  }

  async #prepare(
    owned: Owned,
    slice: LogSlice,
    buffers: BatchBuffers,
    settle: () => Promise<void>,
  ): Promise<PreparedBatch> {
    const began = performance.now();
    const prepared = await owned.pipeline.prepare(owned.next, slice, buffers, settle);
    owned.next = prepared.to;
    this.#metrics.prepareSeconds += (performance.now() - began) / 1000;
    return prepared;
  }

  async #commit(client: ClientBase, owned: Owned, prepared: PreparedBatch): Promise<void> {
    const began = performance.now();
    await owned.pipeline.commit(client, prepared);
    this.#partition.committed(prepared.to);
    const metrics = this.#metrics;
    const { total } = prepared.account;
    metrics.commitSeconds += (performance.now() - began) / 1000;
    metrics.batches++;
    metrics.received += total.received;
    metrics.accepted += total.accepted;
    metrics.duplicate += total.duplicate;
    metrics.deadLettered += total.deadLettered;
    metrics.rollupRows += prepared.buffers.rollups.rows;
    this.#tellOverflows(prepared);
    this.#failures = 0;
    for (const offset of this.#forced.keys()) if (offset < prepared.to) this.#forced.delete(offset);
    this.#limit = Math.min(this.#limit * 2, this.#deps.settings.batchEvents);
  }

  /** Once a meter and tenant; the rows say it for ever. */
  #tellOverflows({ overflows }: PreparedBatch): void {
    for (const { meterId, tenantId, folded } of overflows) {
      this.#metrics.groupsFolded += folded;
      const pair = `${meterId} ${tenantId}`;
      if (this.#toldOf.has(pair)) continue;
      this.#toldOf.add(pair);
      this.#deps.logger.warn(
        { meter_id: meterId, tenant_id: tenantId, folded },
        'more groups than METER_GROUPS_MAX: further ones are counted as "other"',
      );
    }
  }

  #isDue(owned: Owned, watermark: number): boolean {
    return (
      owned.claims.needsMaintenance() ||
      owned.rollups.weight > this.#cacheRows ||
      this.#foldTarget(watermark) > owned.rollups.foldedUntil ||
      owned.coarse.isDue(owned.rollups.foldedUntil)
    );
  }

  get #cacheRows(): number {
    return this.#deps.settings.cacheRows / this.#deps.log.partitions;
  }

  /** Hours before this may be folded now. */
  #foldTarget(watermark: number): number {
    return Math.floor((Math.min(watermark, this.#deps.now()) - FOLD_GRACE_MS) / HOUR) * HOUR;
  }

  /** Between two batches, nothing in flight: seal and merge keys, fold hours, forget cold rows. */
  async #maintain(client: ClientBase, owned: Owned, watermark: number): Promise<void> {
    const { own, rollups, claims, coarse } = owned;
    if (claims.needsMaintenance()) await claims.maintain(client, () => confirm(client, own), MAINTENANCE_BUDGET_MS);
    const target = this.#foldTarget(watermark);
    if (target > rollups.foldedUntil) {
      await this.#fold(client, own, rollups.foldedUntil, target);
      rollups.foldedUntil = target;
    }
    if (coarse.isDue(rollups.foldedUntil)) await coarse.step(client, rollups.foldedUntil, owned.meters);
    if (rollups.weight > this.#cacheRows) rollups.makeRoom(this.#cacheRows);
  }

  async #fold(client: ClientBase, own: Ownership, from: number, to: number): Promise<void> {
    const range = { from: Number.isFinite(from) ? new Date(from) : ('-infinity' as const), to: new Date(to) };
    const { rows } = await client.query<{ hour: number }>(HOURS_TO_FOLD, [own.shard, range.from, range.to]);
    const hours = rows.map((row) => row.hour);
    await this.#deps.engine.ensureChunks(client, TIME_TABLES.rollups_hour, hours);
    await this.#deps.engine.ensureChunks(client, TIME_TABLES.members_hour, hours);
    await client.query('BEGIN');
    await advanceFold(client, own, to);
    if (hours.length > 0) await foldHours(client, own.shard, range);
    this.#deps.fault?.('folded');
    await client.query('COMMIT');
    this.#deps.logger.debug({ partition: own.partition, hours: hours.length, until: range.to }, 'hours folded');
  }

  /** After a failure memory is dropped (the next round starts from the database); a refused record is hunted down. */
  /** The identity of tenants is held across failures; it goes too. */
  #forget(error: Forgotten): void {
    const { directory, logger, settings } = this.#deps;
    logger.info({ partition: this.#partition.partition }, error.message);
    directory.forget();
    this.#tenants = new Tenants(directory, settings.unknownTenants);
  }

  async #recover(error: Error): Promise<void> {
    this.#metrics.failures++;
    const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
    const { partition, revoked } = this.#partition;
    if (error instanceof RawIncomplete) {
      const fault: Fault = { reason: 'event_archived', detail: error.message };
      for (const offset of error.offsets) this.#forced.set(offset, fault);
      this.#deps.logger.warn({ partition, offsets: error.offsets }, `withdrawal refused: ${error.message}`);
      return;
    }
    const inMaintenance = this.#inMaintenance;
    this.#inMaintenance = false;
    // Whatever it was, a chunk may have been dropped since it was seen.
    this.#deps.engine.forget();
    if (DATA_ERRORS.test(code) && !isMissingChunk(error) && !inMaintenance) {
      if (this.#limit === 1) await this.#condemn(error, code);
      this.#limit = Math.max(1, Math.floor(this.#limit / 2));
      this.#deps.logger.warn(
        { partition, code, limit: this.#limit, err: error },
        'batch refused: looking for the record at fault',
      );
      return;
    }
    const wait = BACKOFF_MS[Math.min(this.#failures++, BACKOFF_MS.length - 1)] ?? 5_000;
    this.#deps.logger.error(
      { partition, code, err: error, retry_in_ms: wait },
      'batch failed: starting over from the commit point',
    );
    await pause(wait, revoked);
  }

  /** The record at the commit point was refused alone: it becomes a dead letter on the next try. */
  async #condemn(error: Error, code: string): Promise<void> {
    const own = await acquire(this.#deps.pool, this.#deps.log.topic, this.#partition.partition);
    this.#forced.set(own.next, { reason: 'inapplicable', detail: `SQLSTATE ${code}: ${error.message}`.slice(0, 500) });
  }
}

/** A row that no partition takes is a check violation without a constraint's name: the chunk was dropped meanwhile. */
const isMissingChunk = (error: Error): boolean =>
  'code' in error && error.code === '23514' && !('constraint' in error && error.constraint);
