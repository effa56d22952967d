import { openFilterBudget } from './dedupe/index.ts';
import { DefinitionWatch } from './definitions.ts';
import { PartitionOwner } from './partition-owner.ts';
import type { ProcessorDeps, ProcessorMetrics } from './ports.ts';
import { ShardMerger } from './rollups/shard-merger.ts';

export type { ArchivedDay, ArchivedEvents, ArchivedRange } from './archived-events.ts';
export { BACKFILL_STEPS, type BackfillDeps, createBackfillJob } from './backfill/index.ts';
export type { ProcessorDeps, ProcessorMetrics, ProcessorSettings, Step } from './ports.ts';
export { STEPS } from './ports.ts';
export type { Difference } from './recount/compare.ts';
export { createVerifyJob } from './recount/job.ts';
export { bringMinutesBack, type MinutesDeps } from './recount/minutes.ts';
export { type VerifyDeps, type VerifyRequest, type VerifyResult, verifyRollups } from './recount/verify.ts';
export { type CoarseDay, foldCoarse } from './rollups/fold-coarse.ts';

export interface RunningProcessors {
  /** Leaves the group: batches in hand are committed, nothing after that. */
  stop(): Promise<void>;
  metrics(): ProcessorMetrics;
}

/** Joins the log's consumer group and processes every partition that it is given, until stopped. */
export async function runProcessors(deps: ProcessorDeps): Promise<RunningProcessors> {
  const budget = openFilterBudget(deps.settings.dedupeMemoryBytes);
  const metrics: ProcessorMetrics = {
    batches: 0,
    received: 0,
    accepted: 0,
    duplicate: 0,
    deadLettered: 0,
    rollupRows: 0,
    commitSeconds: 0,
    prepareSeconds: 0,
    failures: 0,
    groupsFolded: 0,
  };
  const watch = new DefinitionWatch(deps.pool, deps.meters, deps.settings.meterRefreshMs);
  const consumer = await deps.log.consume((partition) =>
    new PartitionOwner(deps, partition, { budget, metrics, watch }).run(),
  );
  const merger = new ShardMerger(deps);
  return {
    stop: async () => {
      await Promise.all([consumer.close(), merger.stop()]);
      await watch.stop();
    },
    metrics: () => ({ ...metrics }),
  };
}
