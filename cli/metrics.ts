import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { IngestMetrics } from '../ingest/index.ts';
import type { QualityReport } from '../query-api/index.ts';
import type { LogCounters } from '../sinks/index.ts';
import type { TenantPools } from '../tenants/index.ts';
import type { Lag } from './lag.ts';
import { poolMetrics } from './pool-metrics.ts';
import type { ProcessorThread } from './processor-thread.ts';
import { qualityMetrics } from './quality-metrics.ts';

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
  /** of the log that ingest appends to */
  log?: (() => LogCounters) | undefined;
  pools?: TenantPools | undefined;
  quality?: (() => Promise<QualityReport>) | undefined;
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
  const foldedGroups = gauge(
    'tidemark_meter_groups_folded_total',
    'Groups beyond METER_GROUPS_MAX that were counted as "other", each as often as an owner met it anew',
  );
  const failures = gauge('tidemark_batch_failures_total', 'Batches that failed and were started over');
  const logGauges = from.log === undefined ? undefined : logMetrics(gauge);
  const readPools = from.pools === undefined ? undefined : poolMetrics(registry, from.pools);
  const readQuality = from.quality === undefined ? undefined : qualityMetrics(registry, from.quality);
  const collect = async () => {
    readPools?.();
    await readQuality?.();
    for (const [partition, records] of from.lag.byPartition()) lag.set({ partition: String(partition) }, records);
    requests.set(from.ingest.requests);
    events.set({ outcome: 'accepted' }, from.ingest.accepted);
    events.set({ outcome: 'rejected' }, from.ingest.rejected);
    const thread = await from.processors?.metrics();
    logGauges?.(from.log?.(), thread?.log);
    if (thread === undefined) return;
    const { metrics } = thread;
    processed.set({ outcome: 'accepted' }, metrics.accepted);
    processed.set({ outcome: 'duplicate' }, metrics.duplicate);
    processed.set({ outcome: 'dead_lettered' }, metrics.deadLettered);
    batches.set(metrics.batches);
    rows.set(metrics.rollupRows);
    seconds.set({ phase: 'prepare' }, metrics.prepareSeconds);
    seconds.set({ phase: 'commit' }, metrics.commitSeconds);
    failures.set(metrics.failures);
    foldedGroups.set(metrics.groupsFolded);
  };
  return {
    contentType: registry.contentType,
    metrics: async () => {
      await collect();
      return registry.metrics();
    },
  };
}

type MakeGauge = (name: string, help: string, labelNames?: string[]) => Gauge;

/** Metrics of Kafka: what ingest produced, what the processors fetched, and their group. */
function logMetrics(gauge: MakeGauge): (produced: LogCounters | undefined, consumed: LogCounters | undefined) => void {
  const requests = gauge('tidemark_kafka_requests_total', 'Requests to Kafka', ['api']);
  const batches = gauge('tidemark_kafka_produced_batches_total', 'Record batches acknowledged by Kafka');
  const records = gauge('tidemark_kafka_produced_records_total', 'Records in them');
  const bytes = gauge('tidemark_kafka_bytes_total', 'Bytes of record batches as sent and fetched', ['api']);
  const seconds = gauge('tidemark_kafka_produce_seconds_total', 'Seconds that produce requests took, added up');
  const retries = gauge('tidemark_kafka_retries_total', 'Batches sent again, fetches that failed', ['api']);
  const removed = gauge(
    'tidemark_kafka_removed_records_total',
    'Records that Kafka had removed before they were counted',
  );
  const rebalances = gauge('tidemark_kafka_rebalances_total', 'Times that this process was given partitions');
  const assigned = gauge('tidemark_kafka_assigned_partitions', 'Partitions that this process owns now');
  const commits = gauge('tidemark_kafka_offset_commits_total', 'Offsets told to Kafka, for lag tools');
  return (produced, consumed) => {
    if (produced !== undefined) {
      requests.set({ api: 'produce' }, produced.produceRequests);
      batches.set(produced.producedBatches);
      records.set(produced.producedRecords);
      bytes.set({ api: 'produce' }, produced.producedBytes);
      seconds.set(produced.produceSeconds);
      retries.set({ api: 'produce' }, produced.produceRetries);
    }
    if (consumed === undefined) return;
    requests.set({ api: 'fetch' }, consumed.fetchRequests);
    bytes.set({ api: 'fetch' }, consumed.fetchedBytes);
    retries.set({ api: 'fetch' }, consumed.fetchFailures);
    rebalances.set(consumed.rebalances);
    assigned.set(consumed.assigned);
    commits.set(consumed.offsetCommits);
    removed.set(consumed.removedRecords);
  };
}
