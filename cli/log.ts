/** Which event log: Kafka where KAFKA_BROKERS is set, the embedded one in the data folder otherwise. */
import { readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import { type Check, type Settings, TidemarkError } from '../schemas/index.ts';
import {
  checkKafka,
  type EventLog,
  type KafkaOptions,
  type KafkaSecurity,
  type LogCounters,
  openEmbeddedLog,
  openKafkaLog,
} from '../sinks/index.ts';

const HOUR_MS = 3_600_000;

/** The log, and what it counts for metrics where it counts anything. */
export interface OpenedLog {
  log: EventLog;
  counters?(): LogCounters;
}

/**
 * Opens the event log.
 * @param directory of the embedded log
 * @throws TidemarkError `invalid_setting`
 * @throws {LogUnavailable} when Kafka does not answer within a minute
 */
export async function openLog(settings: Settings, directory: string, logger: Logger): Promise<OpenedLog> {
  const options = kafkaOptions(settings, logger);
  if (options === undefined) return { log: await openEmbeddedLog({ directory, partitions: settings.LOG_PARTITIONS }) };
  const log = await openKafkaLog(options);
  return { log, counters: () => log.counters() };
}

/** The log's part of `tidemark doctor`: nothing where the log is the embedded one. */
export async function checkLog(settings: Settings, logger: Logger): Promise<Check[]> {
  const options = kafkaOptions(settings, logger);
  return options === undefined ? [] : checkKafka(options);
}

function kafkaOptions(
  settings: Settings,
  logger: Logger,
): (Partial<KafkaOptions> & Pick<KafkaOptions, 'brokers' | 'logger'>) | undefined {
  const brokers = settings.KAFKA_BROKERS;
  if (brokers === undefined) return undefined;
  const registry = settings.KAFKA_SCHEMA_REGISTRY_URL;
  return {
    brokers,
    logger,
    topic: settings.KAFKA_TOPIC,
    group: settings.KAFKA_GROUP,
    partitions: settings.LOG_PARTITIONS,
    security: securityOf(settings),
    compression: settings.KAFKA_COMPRESSION,
    lingerMs: settings.KAFKA_LINGER_MS,
    batchBytes: settings.KAFKA_BATCH_BYTES,
    inFlight: settings.KAFKA_IN_FLIGHT,
    bufferBytes: settings.KAFKA_BUFFER_MB << 20,
    prefetchBytes: settings.KAFKA_PREFETCH_MB << 20,
    requestTimeoutMs: settings.KAFKA_REQUEST_TIMEOUT_MS,
    deliveryTimeoutMs: settings.APPEND_DEADLINE_MS,
    sessionTimeoutMs: settings.KAFKA_SESSION_TIMEOUT_MS,
    rebalanceTimeoutMs: settings.KAFKA_REBALANCE_TIMEOUT_MS,
    replication: settings.KAFKA_REPLICATION,
    minInsyncReplicas: settings.KAFKA_MIN_INSYNC_REPLICAS,
    retentionMs: settings.KAFKA_RETENTION_HOURS * HOUR_MS,
    schemaRegistry:
      registry === undefined
        ? undefined
        : {
            url: registry,
            ...defined('username', settings.KAFKA_SCHEMA_REGISTRY_USERNAME),
            ...defined('password', settings.KAFKA_SCHEMA_REGISTRY_PASSWORD),
          },
  };
}

function securityOf(settings: Settings): KafkaSecurity {
  const protocol = settings.KAFKA_SECURITY_PROTOCOL;
  const security: KafkaSecurity = { protocol };
  if (protocol === 'SASL_PLAINTEXT' || protocol === 'SASL_SSL') {
    const { KAFKA_SASL_USERNAME: username, KAFKA_SASL_PASSWORD: password } = settings;
    if (username === undefined || password === undefined)
      throw new TidemarkError(
        'invalid_setting',
        `KAFKA_SECURITY_PROTOCOL is ${protocol}: KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD are needed`,
      );
    security.sasl = { mechanism: settings.KAFKA_SASL_MECHANISM, username, password };
  }
  security.tls = {
    ...defined('ca', pem('KAFKA_SSL_CA', settings.KAFKA_SSL_CA)),
    ...defined('cert', pem('KAFKA_SSL_CERT', settings.KAFKA_SSL_CERT)),
    ...defined('key', pem('KAFKA_SSL_KEY', settings.KAFKA_SSL_KEY)),
  };
  return security;
}

function pem(name: string, file: string | undefined): string | undefined {
  if (file === undefined) return undefined;
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new TidemarkError('invalid_setting', `${name}: the file ${file} can not be read`, { cause });
  }
}

function defined<K extends string, V>(name: K, value: V | undefined): { [name in K]?: V } {
  const object: { [name in K]?: V } = {};
  if (value !== undefined) object[name] = value;
  return object;
}
