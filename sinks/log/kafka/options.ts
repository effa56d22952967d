import type { Compression } from './compression.ts';

/** What the Kafka log writes to the process's log; pino's own signature. */
export interface LogWriter {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export type SecurityProtocol = 'PLAINTEXT' | 'SSL' | 'SASL_PLAINTEXT' | 'SASL_SSL';
export type SaslMechanism = 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512';

/** How to reach and trust the cluster; the names are those of Kafka's own clients. */
export interface KafkaSecurity {
  protocol: SecurityProtocol;
  sasl?: { mechanism: SaslMechanism; username: string; password: string };
  /** PEM texts; without `ca` the system's authorities are trusted */
  tls?: { ca?: string; cert?: string; key?: string };
}

export interface KafkaOptions {
  /** host:port, any of which leads to the cluster */
  brokers: readonly string[];
  topic: string;
  /** consumer group */
  group: string;
  /** partitions of the topic: made with so many, and refused with another number */
  partitions: number;
  security: KafkaSecurity;
  compression: Compression;
  /** how long records wait for others, ms */
  lingerMs: number;
  /** most bytes of a record batch, before compression */
  batchBytes: number;
  /** produce requests in flight to one broker */
  inFlight: number;
  /** bytes waiting to be acknowledged beyond which appends are refused */
  bufferBytes: number;
  /** bytes fetched ahead of the processors, all partitions of this process together */
  prefetchBytes: number;
  /** a request without an answer for so long means that the connection is dead, ms */
  requestTimeoutMs: number;
  /** an append that is not acknowledged by then has failed, ms */
  deliveryTimeoutMs: number;
  /** a member not heard of for so long loses its partitions, ms */
  sessionTimeoutMs: number;
  /** how long the group waits for its members to stop and join again, ms */
  rebalanceTimeoutMs: number;
  /** for a topic that we make; undefined: the broker's own defaults */
  replication: number | undefined;
  minInsyncReplicas: number | undefined;
  /** how long a topic that we make keeps records, ms */
  retentionMs: number;
  /** how long opening waits for a cluster that is not up yet, ms */
  startTimeoutMs: number;
  schemaRegistry: { url: string; username?: string; password?: string } | undefined;
  logger: LogWriter;
}

/** What may be left out. */
export const KAFKA_DEFAULTS = {
  topic: 'tidemark.events',
  group: 'tidemark',
  partitions: 4,
  security: { protocol: 'PLAINTEXT' },
  compression: 'none',
  lingerMs: 5,
  batchBytes: 900_000,
  inFlight: 5,
  bufferBytes: 64 << 20,
  prefetchBytes: 32 << 20,
  requestTimeoutMs: 5_000,
  deliveryTimeoutMs: 10_000,
  sessionTimeoutMs: 10_000,
  rebalanceTimeoutMs: 30_000,
  replication: undefined,
  minInsyncReplicas: undefined,
  retentionMs: 7 * 86_400_000,
  startTimeoutMs: 60_000,
  schemaRegistry: undefined,
} as const satisfies Partial<KafkaOptions>;
