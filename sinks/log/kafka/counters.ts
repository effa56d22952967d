/** What the Kafka log has done since it was opened, for metrics. Sums only: rates and averages are the reader's. */
export interface LogCounters {
  produceRequests: number;
  /** record batches acknowledged, their records, and their bytes as sent */
  producedBatches: number;
  producedRecords: number;
  producedBytes: number;
  /** seconds that produce requests took, one after another */
  produceSeconds: number;
  produceRetries: number;
  fetchRequests: number;
  fetchedBytes: number;
  fetchFailures: number;
  /** records that Kafka had removed before they were read */
  removedRecords: number;
  /** times that this member's assignment changed */
  rebalances: number;
  /** partitions owned now */
  assigned: number;
  /** offsets committed to Kafka, the hint for lag tools */
  offsetCommits: number;
}

export const newCounters = (): LogCounters => ({
  produceRequests: 0,
  producedBatches: 0,
  producedRecords: 0,
  producedBytes: 0,
  produceSeconds: 0,
  produceRetries: 0,
  fetchRequests: 0,
  fetchedBytes: 0,
  fetchFailures: 0,
  removedRecords: 0,
  rebalances: 0,
  assigned: 0,
  offsetCommits: 0,
});
