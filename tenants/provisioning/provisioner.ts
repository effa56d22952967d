import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import type { Logger } from '../ports.ts';
import { type Begun, beginProvisioning, type NewTenant } from './begin.ts';
import { type ProvisioningState, provisioningState } from './progress.ts';
import {
  asOwner,
  LEASE_SECONDS,
  LeaseLost,
  lostRuns,
  type RunWriter,
  releaseAll,
  releaseRun,
  renewLease,
  type TakenRun,
  takeRun,
} from './run-store.ts';
import type { ProvisioningStep, StepContext } from './step.ts';

export interface ProvisionerDeps {
  /** may make roles and schemas; as many connections as runs at once, and one */
  pool: Pool;
  steps: readonly ProvisioningStep[];
  atOnce: number;
  logger: Logger;
  /** attempts of a step before everything is undone, and the first pause between them (ms, doubled each time) */
  retry?: { attempts: number; baseMs: number };
  /** how often runs of ended processes are looked for */
  sweepMs?: number;
  /** for crash tests: called at `provision/<step>/<begun|called|done|undone>` */
  fault?(point: string): void;
}

const RETRY = { attempts: 5, baseMs: 200 };
const SWEEP_MS = 2_000;
const LONGEST_PAUSE_MS = 30_000;
const READY = `UPDATE tenants SET status = 'ready', purged_at = NULL, delete_after = NULL WHERE id = $1`;
const ENDED = new Set(['ready', 'failed']);

/**
 * Runs provisionings: in this process those that it began, and those whose process has ended. A step's own work and its
 * record are one transaction under the run's lease; so a crash at any point repeats at most a call to the outside.
 */
export class Provisioner {
  readonly #deps: ProvisionerDeps;
  readonly #owner = randomUUID();
  readonly #changes = new EventEmitter().setMaxListeners(0);
  readonly #running = new Map<string, Promise<void>>();
  readonly #waiting: string[] = [];
  readonly #stopping = new AbortController();
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(deps: ProvisionerDeps) {
    this.#deps = deps;
  }

  /**
   * Begins to look for runs that no living process has.
   * @param alone no other process works on this database: whoever had a lease has ended
   */
  start({ alone = false } = {}): void {
    const sweep = () =>
      this.#sweep().catch((error) => this.#deps.logger.warn({ err: error }, 'provisionings not looked through'));
    void (alone ? releaseAll(this.#deps.pool).then(sweep, sweep) : sweep());
    this.#timers.push(setInterval(sweep, this.#deps.sweepMs ?? SWEEP_MS));
    this.#timers.push(setInterval(() => void this.#renewAll(), (LEASE_SECONDS * 1000) / 4));
  }

  /** Runs end after the transaction in hand, and are taken up by the next process. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const timer of this.#timers) clearInterval(timer);
    await Promise.all(this.#running.values());
    for (const id of this.#waiting.splice(0)) await releaseRun(this.#deps.pool, id, this.#owner);
  }

  /** @throws TidemarkError `conflict` | `idempotency_mismatch` */
  async begin(tenant: NewTenant, idempotencyKey?: string): Promise<Begun> {
    const steps = this.#deps.steps.map((step) => step.name);
    const begun = await beginProvisioning(this.#deps.pool, tenant, { idempotencyKey, owner: this.#owner, steps });
    if (!begun.repeated) this.#enqueue(begun.provisioningId);
    return begun;
  }

  /** Resolves when the run has ended, or after `ms`, with its state then. */
  async wait(id: string, ms: number): Promise<ProvisioningState | undefined> {
    const deadline = performance.now() + ms;
    for (;;) {
      const changed = this.changed(id, Math.min(250, Math.max(1, deadline - performance.now())));
      const state = await provisioningState(this.#deps.pool, id);
      if (state === undefined || ENDED.has(state.status) || performance.now() >= deadline) {
        return state;
      }
      await changed;
    }
  }

  /** Resolves when this process has changed the run, or after `ms`: another process may have. */
  async changed(id: string, ms: number, signal?: AbortSignal): Promise<void> {
    const timeout = AbortSignal.timeout(ms);
    await once(this.#changes, id, {
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    }).catch(() => undefined);
  }

  async #sweep(): Promise<void> {
    for (const id of await lostRuns(this.#deps.pool, this.#deps.atOnce)) this.#enqueue(id);
  }

  /** Runs that wait for their turn, or for the outside, are still ours. */
  async #renewAll(): Promise<void> {
    for (const id of [...this.#running.keys(), ...this.#waiting])
      await renewLease(this.#deps.pool, id, this.#owner).catch(() => undefined);
  }

  #enqueue(id: string): void {
    if (this.#stopping.signal.aborted || this.#running.has(id) || this.#waiting.includes(id)) return;
    this.#waiting.push(id);
    this.#next();
  }

  #next(): void {
    while (this.#running.size < this.#deps.atOnce && !this.#stopping.signal.aborted) {
      const id = this.#waiting.shift();
      if (id === undefined) return;
      const run = this.#run(id)
        .catch((error) => {
          if (!(error instanceof LeaseLost))
            this.#deps.logger.error({ err: error, provisioning: id }, 'provisioning stopped');
        })
        .finally(() => {
          this.#running.delete(id);
          this.#next();
        });
      this.#running.set(id, run);
    }
  }

  async #run(id: string): Promise<void> {
    const run = await takeRun(this.#deps.pool, id, this.#owner);
    if (run === undefined) return;
    const context: StepContext = { tenantId: run.tenantId, request: run.request, provisioningId: id };
    try {
      const failure = run.status === 'undoing' ? (run.error ?? '') : await this.#forward(run, context);
      if (failure !== undefined) await this.#undo(run, context, failure);
    } finally {
      await releaseRun(this.#deps.pool, id, this.#owner).catch(() => undefined);
      this.#changes.emit(id);
    }
  }

  /** @returns why it failed for good; undefined when it is ready, or this process stops */
  async #forward(run: TakenRun, context: StepContext): Promise<string | undefined> {
    for (const [i, step] of this.#deps.steps.entries()) {
      const known = run.steps[i];
      if (known?.status === 'done' || known?.status === 'skipped') continue;
      const failure = await this.#attempt(run, step, context, known?.attempt ?? 0, i === this.#deps.steps.length - 1);
      if (failure !== undefined) return failure;
      if (this.#stopping.signal.aborted) return undefined;
    }
    // The last step was done or skipped by a process that ended right then: its transaction said ready too.
    return undefined;
  }

  async #attempt(
    run: TakenRun,
    step: ProvisioningStep,
    context: StepContext,
    tried: number,
    last: boolean,
  ): Promise<string | undefined> {
    const { attempts, baseMs } = this.#deps.retry ?? RETRY;
    const { pool } = this.#deps;
    if (step.applies?.(context) === false) {
      await asOwner(pool, run.id, this.#owner, async (writer) => {
        await writer.end(step.name, 'skipped');
        if (last) await this.#ready(writer, context);
      });
      this.#changes.emit(run.id);
      return undefined;
    }
    for (let attempt = tried + 1; !this.#stopping.signal.aborted; attempt++) {
      await asOwner(pool, run.id, this.#owner, (writer) => writer.start(step.name));
      this.#changes.emit(run.id);
      this.#deps.fault?.(`provision/${step.name}/begun`);
      try {
        const called = await step.call?.(context);
        this.#deps.fault?.(`provision/${step.name}/called`);
        await asOwner(pool, run.id, this.#owner, async (writer) => {
          await step.apply?.(writer.client, context, called);
          await writer.end(step.name, 'done');
          if (last) await this.#ready(writer, context);
        });
        this.#deps.fault?.(`provision/${step.name}/done`);
        this.#changes.emit(run.id);
        return undefined;
      } catch (error) {
        if (error instanceof LeaseLost) throw error;
        const message = error instanceof Error ? error.message : String(error);
        this.#deps.logger.warn(
          { err: error, provisioning: run.id, step: step.name, attempt },
          'provisioning step failed',
        );
        await asOwner(pool, run.id, this.#owner, (writer) => writer.end(step.name, 'failed', message));
        this.#changes.emit(run.id);
        if (attempt >= attempts) return `${step.name}: ${message}`;
        await this.#pause(baseMs * 2 ** (attempt - 1));
      }
    }
    return undefined;
  }

  /** In the transaction of the last step: ready, or not at all. */
  async #ready(writer: RunWriter, { tenantId }: StepContext): Promise<void> {
    await writer.client.query(READY, [tenantId]);
    await writer.setStatus('ready', null);
  }

  /** In reverse, until nothing is left; what can't be undone now is tried again until it can. */
  async #undo(run: TakenRun, context: StepContext, failure: string): Promise<void> {
    const { pool, steps, logger } = this.#deps;
    if (run.status !== 'undoing')
      await asOwner(pool, run.id, this.#owner, async (writer) => {
        await writer.client.query(`UPDATE tenants SET status = 'failed' WHERE id = $1`, [context.tenantId]);
        await writer.setStatus('undoing', failure);
      });
    this.#changes.emit(run.id);
    for (const [i, step] of [...steps.entries()].reverse()) {
      for (let attempt = 1; ; attempt++) {
        if (this.#stopping.signal.aborted) return;
        try {
          await step.undoCall?.(context);
          await asOwner(pool, run.id, this.#owner, async (writer) => {
            await step.undo?.(writer.client, context);
            await writer.end(step.name, 'undone');
            if (i === 0) await writer.setStatus('failed', failure);
          });
          this.#deps.fault?.(`provision/${step.name}/undone`);
          this.#changes.emit(run.id);
          break;
        } catch (error) {
          if (error instanceof LeaseLost) throw error;
          logger.error(
            { err: error, provisioning: run.id, step: step.name, attempt },
            'undo of a provisioning step failed',
          );
          await this.#pause((this.#deps.retry ?? RETRY).baseMs * 2 ** Math.min(attempt - 1, 8));
        }
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    await delay(Math.min(ms, LONGEST_PAUSE_MS), undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }
}
