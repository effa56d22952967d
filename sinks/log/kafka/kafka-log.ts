/** Apache Kafka (3.7 or later) as the event log. */
import type Cluster from 'kafkajs/src/cluster/index.js';
import type { Check } from '../../../schemas/index.ts';
import {
  type AssignedPartition,
  type Consumer,
  type EventLog,
  LogUnavailable,
  type PartitionRange,
  type RecordBatch,
} from '../port.ts';
import { KafkaClient } from './client.ts';
import { type LogCounters, newCounters } from './counters.ts';
import { Fetcher } from './fetcher.ts';
import { type Framing, SINGLE_OBJECT } from './framing.ts';
import { GroupMembership } from './membership.ts';
import { KAFKA_DEFAULTS, type KafkaOptions } from './options.ts';
import { KafkaPartition } from './partition.ts';
import { Producer } from './producer.ts';
import { openRegistryFraming } from './schema-registry.ts';
import { checkTopic, openTopic } from './topic.ts';

/** What a broker's checksum, lengths and header need beside the records. */
const BATCH_HEAD_BYTES = 2_048;

type Given = Pick<KafkaOptions, 'brokers' | 'logger'> & Partial<KafkaOptions>;

/**
 * Opens the topic; makes it if it is missing.
 * @throws TidemarkError `invalid_setting` when the topic has another number of partitions than asked for
 * @throws {LogUnavailable} when the cluster or the schema registry does not answer in time
 */
export async function openKafkaLog(given: Given): Promise<KafkaLog> {
  const options: KafkaOptions = { ...KAFKA_DEFAULTS, ...given };
  const { config } = await openTopic(options);
  const most = Number(config.get('max.message.bytes') ?? 1_048_588);
  options.batchBytes = Math.min(options.batchBytes, most - BATCH_HEAD_BYTES);
  const framing =
    options.schemaRegistry === undefined
      ? SINGLE_OBJECT
      : await openRegistryFraming(options.schemaRegistry, options.topic);
  return new KafkaLog(options, framing);
}

/** Findings about the cluster and the topic, for `tidemark doctor`. Never throws. */
export function checkKafka(given: Given): Promise<Check[]> {
  return checkTopic({ ...KAFKA_DEFAULTS, ...given });
}

export class KafkaLog implements EventLog {
  readonly topic: string;
  readonly partitions: number;
  readonly #options: KafkaOptions;
  readonly #framing: Framing;
  readonly #counters: LogCounters = newCounters();
  readonly #appends: KafkaClient;
  readonly #questions: KafkaClient;
  readonly #producer: Producer;
  readonly #consumers = new Set<Consumer>();
  #closed: Promise<void> | undefined;

  constructor(options: KafkaOptions, framing: Framing) {
    this.topic = options.topic;
    this.partitions = options.partitions;
    this.#options = options;
    this.#framing = framing;
    this.#appends = new KafkaClient(options, 'ingest');
    this.#questions = new KafkaClient(options, 'watch');
    this.#producer = new Producer(this.#appends, options, framing, this.#counters);
  }

  async append(batches: readonly RecordBatch[]): Promise<void> {
    for (const { partition, count } of batches)
      if (count > 0 && !(partition >= 0 && partition < this.partitions))
        throw new RangeError(`no partition ${partition}`);
    return this.#producer.append(batches);
  }

  async consume(onAssigned: (partition: AssignedPartition) => Promise<void>): Promise<Consumer> {
    if (this.#closed !== undefined) throw new LogUnavailable('the log is closed');
    const client = new KafkaClient(this.#options, 'processors');
    const fetcher = new Fetcher(client, this.#options, this.#counters);
    const membership: GroupMembership = new GroupMembership(
      client,
      this.#options,
      this.#counters,
      (partition, revoked) =>
        onAssigned(
          new KafkaPartition(partition, revoked, fetcher, this.#framing, (offset) =>
            membership.hint(partition, offset),
          ),
        ),
    );
    membership.start();
    let closing: Promise<void> | undefined;
    const consumer: Consumer = {
      close: () => {
        closing ??= (async () => {
          await membership.leave();
          fetcher.close();
          client.close();
          this.#consumers.delete(consumer);
        })();
        return closing;
      },
    };
    this.#consumers.add(consumer);
    return consumer;
  }

  ranges(): Promise<PartitionRange[]> {
    return this.#questions.run(async (cluster) => {
      const partitions = Array.from({ length: this.partitions }, (_, partition) => ({ partition }));
      const [first, end] = [
        await this.#offsets(cluster, partitions, true),
        await this.#offsets(cluster, partitions, false),
      ];
      return partitions.map(({ partition }) => ({
        partition,
        first: first.get(partition) ?? 0,
        end: end.get(partition) ?? 0,
      }));
    }, this.#options.requestTimeoutMs);
  }

  /** What was done since the log was opened. */
  counters(): LogCounters {
    return { ...this.#counters };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#consumers].map((consumer) => consumer.close()));
    this.#producer.close();
    this.#appends.close();
    this.#questions.close();
  }

  async #offsets(cluster: Cluster, partitions: { partition: number }[], fromBeginning: boolean) {
    const found = await cluster.fetchTopicsOffset([{ topic: this.topic, partitions, fromBeginning }]);
    const offsets = new Map<number, number>();
    for (const one of found) for (const { partition, offset } of one.partitions) offsets.set(partition, Number(offset));
    if (offsets.size < partitions.length) throw new LogUnavailable('Kafka: a partition has no leader');
    return offsets;
  }
}
