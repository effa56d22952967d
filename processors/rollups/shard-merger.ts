import { pause } from '../../sinks/index.ts';
import type { ProcessorDeps } from '../ports.ts';
import { mergeShards } from './merge-shards.ts';

/** Between two looks; a setting that makes coarse rows again sooner does so here too. */
const LOOK_MS = 60_000;
const LEAST_MS = 20;
/** Merging takes at most one part in so many of the time: the processors' thread does it. */
const SHARE = 10;

/** Keeps coarse rows added up over all shards, beside the partitions' owners. One process at a time does. */
export class ShardMerger {
  readonly #deps: ProcessorDeps;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(deps: ProcessorDeps) {
    this.#deps = deps;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const { pool, meters, settings, fault, logger } = this.#deps;
    const { signal } = this.#stop;
    const builtin = meters.map((meter) => meter.id);
    while (!signal.aborted) {
      const began = performance.now();
      let more = false;
      try {
        more = await mergeShards(pool, builtin, () => fault?.('merged'));
      } catch (error) {
        // Nothing depends on it: until then readers take the shards' own rows.
        logger.warn({ err: error }, 'coarse rollups could not be added up over all partitions');
      }
      const rest = (performance.now() - began) * (SHARE - 1);
      const look = Math.min(Math.max(settings.refoldMs, LEAST_MS), LOOK_MS);
      await pause(!more ? look : settings.refoldMs === 0 ? 0 : rest, signal);
    }
  }

  /** Ends after the day in hand. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
