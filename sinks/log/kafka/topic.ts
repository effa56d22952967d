/** The topic as it should be: made when it is missing, and checked. */
import kafkajs, { type Admin, Kafka } from 'kafkajs';
import { type Check, TidemarkError } from '../../../schemas/index.ts';
import { LogUnavailable } from '../port.ts';
import { kafkaConfig } from './client.ts';
import type { KafkaOptions } from './options.ts';

export interface TopicState {
  partitions: number;
  /** fewest replicas of a partition, and fewest that are in sync */
  replicas: number;
  inSync: number;
  /** the topic's settings by name; empty where we may not read them */
  config: ReadonlyMap<string, string>;
}

/** An event is at most 64 KB; with its key and what surrounds it. */
const LEAST_MESSAGE_BYTES = 128 << 10;
const DAY_MS = 86_400_000;
const RETRY_MS = 500;

/**
 * Makes the topic if it is not there, and waits for a cluster that is not up yet.
 * @throws TidemarkError `invalid_setting` when the topic has another number of partitions
 * @throws {LogUnavailable} when the cluster does not answer within `startTimeoutMs`
 */
export async function openTopic(options: KafkaOptions): Promise<TopicState> {
  const deadline = performance.now() + options.startTimeoutMs;
  let said = false;
  for (;;) {
    try {
      const state = await withAdmin(options, async (admin) => {
        await makeTopic(admin, options);
        return stateOf(admin, options.topic);
      });
      if (state.partitions !== options.partitions)
        throw new TidemarkError(
          'invalid_setting',
          `LOG_PARTITIONS is ${options.partitions}, but the topic ${options.topic} has ${state.partitions}: ` +
            'a partition is a function of the tenant, so the two must agree (docs/kafka.md)',
        );
      return state;
    } catch (error) {
      if (error instanceof TidemarkError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      if (performance.now() > deadline)
        throw new LogUnavailable(`Kafka at ${options.brokers.join(', ')} can't be used: ${why}`, { cause: error });
      if (!said) options.logger.warn({ err: why, brokers: options.brokers }, 'Kafka is not ready: waiting for it');
      said = true;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/**
 * What `tidemark doctor` says about the log: partitions, replication, retention, min.insync.replicas, size of messages.
 * Never throws: a cluster that does not answer is a finding.
 */
export async function checkTopic(options: KafkaOptions): Promise<Check[]> {
  try {
    const state = await withAdmin(options, (admin) => stateOf(admin, options.topic));
    return [
      { name: 'kafka', ok: true, detail: `${options.brokers.join(', ')} answers; topic ${options.topic}` },
      ...checksOf(state, options),
    ];
  } catch (error) {
    const detail = `${options.brokers.join(', ')}: ${error instanceof Error ? error.message : error}`;
    return [{ name: 'kafka', ok: false, detail }];
  }
}

/** The findings about a topic's state. */
export function checksOf(state: TopicState, { partitions }: Pick<KafkaOptions, 'partitions'>): Check[] {
  const { replicas, inSync, config } = state;
  const checks: Check[] = [
    {
      name: 'kafka partitions',
      ok: state.partitions === partitions,
      detail: `${state.partitions}, LOG_PARTITIONS is ${partitions}`,
    },
    {
      name: 'kafka replication',
      ok: replicas >= 3,
      detail:
        replicas >= 3
          ? `${replicas} replicas`
          : `${replicas}: the loss of a broker may lose acknowledged events; 3 are usual`,
    },
    { name: 'kafka in-sync replicas', ok: inSync === replicas, detail: `${inSync} of ${replicas}` },
  ];
  const number = (name: string) => Number(config.get(name) ?? Number.NaN);
  const least = number('min.insync.replicas');
  if (!Number.isNaN(least))
    checks.push({
      name: 'kafka min.insync.replicas',
      ok: least >= 2 && least < replicas,
      detail:
        least < 2
          ? `${least}: acks=all is one broker's word; 2 with 3 replicas is usual`
          : least >= replicas
            ? `${least} of ${replicas} replicas: one broker down stops ingest`
            : String(least),
    });
  const retention = number('retention.ms');
  if (!Number.isNaN(retention))
    checks.push({
      name: 'kafka retention',
      ok: retention < 0 || retention >= DAY_MS,
      detail:
        retention < 0
          ? 'for ever'
          : `${(retention / DAY_MS).toFixed(1)} days; records that were not counted within it are lost`,
    });
  const bytes = number('retention.bytes');
  if (bytes >= 0)
    checks.push({
      name: 'kafka retention.bytes',
      ok: false,
      detail: `${bytes} a partition: records may go before they were counted; -1 keeps them for their time`,
    });
  const policy = config.get('cleanup.policy');
  if (policy !== undefined)
    checks.push({
      name: 'kafka cleanup.policy',
      ok: policy === 'delete',
      detail: policy === 'delete' ? policy : `${policy}: compaction drops events of the same tenant`,
    });
  const message = number('max.message.bytes');
  if (!Number.isNaN(message))
    checks.push({
      name: 'kafka max.message.bytes',
      ok: message >= LEAST_MESSAGE_BYTES,
      detail: `${message}; at least ${LEAST_MESSAGE_BYTES} are needed`,
    });
  return checks;
}

async function makeTopic(admin: Admin, options: KafkaOptions): Promise<void> {
  const { topic, partitions, replication, minInsyncReplicas, retentionMs } = options;
  if ((await admin.listTopics()).includes(topic)) return;
  const configEntries = [{ name: 'retention.ms', value: String(retentionMs) }];
  if (minInsyncReplicas !== undefined)
    configEntries.push({ name: 'min.insync.replicas', value: String(minInsyncReplicas) });
  const made = await admin.createTopics({
    waitForLeaders: true,
    // -1: the broker's default.
    topics: [{ topic, numPartitions: partitions, replicationFactor: replication ?? -1, configEntries }],
  });
  if (made) options.logger.info({ topic, partitions }, 'Kafka: topic made');
}

async function stateOf(admin: Admin, topic: string): Promise<TopicState> {
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
  const partitions = topics[0]?.partitions ?? [];
  if (partitions.length === 0) throw new Error(`topic ${topic} is not there`);
  return {
    partitions: partitions.length,
    replicas: Math.min(...partitions.map((one) => one.replicas.length)),
    inSync: Math.min(...partitions.map((one) => one.isr.length)),
    config: await configOf(admin, topic),
  };
}

/** Reading settings needs a right of its own, which appending and consuming don't. */
async function configOf(admin: Admin, topic: string): Promise<Map<string, string>> {
  try {
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic }],
    });
    return new Map(resources[0]?.configEntries.map((entry) => [entry.configName, entry.configValue]));
  } catch {
    return new Map();
  }
}

async function withAdmin<T>(options: KafkaOptions, task: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = new Kafka(kafkaConfig(options, 'tidemark-admin')).admin();
  try {
    await admin.connect();
    return await task(admin);
  } finally {
    await admin.disconnect();
  }
}
