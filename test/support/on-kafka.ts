/** Imported first by a test file: its servers use Kafka as their log, each a topic of its own. */
import { afterAll } from 'vitest';
import { freshName, startKafka } from './kafka.ts';
import { serverDefaults } from './server.ts';

const kafka = await startKafka();
serverDefaults.make = () => {
  const name = freshName('server');
  return {
    KAFKA_BROKERS: kafka.brokers.join(','),
    KAFKA_TOPIC: name,
    KAFKA_GROUP: name,
    KAFKA_SESSION_TIMEOUT_MS: '2000',
    KAFKA_REBALANCE_TIMEOUT_MS: '5000',
  };
};
afterAll(() => kafka.dispose());
