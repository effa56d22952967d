export { COMPRESSIONS, type Compression } from './compression.ts';
export type { LogCounters } from './counters.ts';
export { checkKafka, type KafkaLog, openKafkaLog } from './kafka-log.ts';
export {
  KAFKA_DEFAULTS,
  type KafkaOptions,
  type KafkaSecurity,
  type SaslMechanism,
  type SecurityProtocol,
} from './options.ts';
export { isRecordBatch } from './record-batch.ts';
