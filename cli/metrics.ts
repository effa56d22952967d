import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { IngestMetrics } from '../ingest/index.ts';
import type { Lag } from './lag.ts';
import type { ProcessorThread } from './processor-thread.ts';

/** What a scrape answers. */
export interface Metrics {
  contentType: string;
  metrics(): Promise<string>;
}

/** Prometheus metrics, read at each scrape from the counters that the rooms keep. */
export function createMetrics(from: {
  ingest: IngestMetrics;
  lag: Lag;
  processors: ProcessorThread | undefined;
}): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [registry] });
  const lag = gauge('tidemark_log_lag_records', 'Records on the log that no commit has covered', ['partition']);
  const requests = gauge('tidemark_ingest_requests_total', 'Ingest requests');
  const events = gauge('tidemark_ingest_events_total', 'Events by outcome at ingest', ['outcome']);
  const processed = gauge('tidemark_processed_events_total', 'Records by outcome of their commit', ['outcome']);
  const batches = gauge('tidemark_batches_total', 'Batches committed');
  const rows = gauge('tidemark_rollup_rows_total', 'Rollup rows written');
  const seconds = gauge('tidemark_batch_seconds_total', 'Seconds spent in batches', ['phase']);
  const failures = gauge('tidemark_batch_failures_total', 'Batches that failed and were started over');
  const collect = async () => {
    for (const [partition, records] of from.lag.byPartition()) lag.set({ partition: String(partition) }, records);
    requests.set(from.ingest.requests);
    events.set({ outcome: 'accepted' }, from.ingest.accepted);
    events.set({ outcome: 'rejected' }, from.ingest.rejected);
    const metrics = await from.processors?.metrics();
    if (metrics === undefined) return;
    processed.set({ outcome: 'accepted' }, metrics.accepted);
    processed.set({ outcome: 'duplicate' }, metrics.duplicate);
    processed.set({ outcome: 'dead_lettered' }, metrics.deadLettered);
    batches.set(metrics.batches);
    rows.set(metrics.rollupRows);
    seconds.set({ phase: 'prepare' }, metrics.prepareSeconds);
    seconds.set({ phase: 'commit' }, metrics.commitSeconds);
    failures.set(metrics.failures);
  };
  return {
    contentType: registry.contentType,
    metrics: async () => {
      await collect();
      return registry.metrics();
    },
  };
}
