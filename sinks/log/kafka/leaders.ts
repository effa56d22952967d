import type Cluster from 'kafkajs/src/cluster/index.js';

/** Which broker leads each partition, as the client's metadata said last. */
export class Leaders {
  readonly #topic: string;
  #byPartition = new Map<number, number>();

  constructor(topic: string) {
    this.#topic = topic;
  }

  /** The leader's node id; undefined while there is none, or none is known. */
  of(partition: number): number | undefined {
    return this.#byPartition.get(partition);
  }

  learn(cluster: Cluster): void {
    const found = new Map<number, number>();
    for (const { partitionId, leader } of cluster.findTopicPartitionMetadata(this.#topic))
      if (leader >= 0) found.set(partitionId, leader);
    this.#byPartition = found;
  }
}
