import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freshName, startKafka, type TestKafka } from '../support/kafka.ts';
import { eventLogConformance } from './event-log.ts';

let kafka: TestKafka;
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
afterAll(() => kafka.dispose());

describe('Kafka', () => {
  eventLogConformance(() => {
    const name = freshName('conformance');
    return { open: () => kafka.open({ topic: name, group: name }) };
  });

  test('keeps its number of partitions', async () => {
    const name = freshName('partitions');
    await (await kafka.open({ topic: name, partitions: 4 })).close();
    await expect(kafka.open({ topic: name, partitions: 8 })).rejects.toMatchObject({ code: 'invalid_setting' });
  });
});
