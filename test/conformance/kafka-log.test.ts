import { ConfigResourceTypes } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LogSlice } from '../../sinks/index.ts';
import { freshName, silentKafka, startKafka, type TestKafka } from '../support/kafka.ts';
import { until } from '../support/server.ts';
import { batchOf, eventLogConformance } from './event-log.ts';

const contentsOf = ({ count, offsets, firstOffset, bytes, ends }: LogSlice) =>
  Array.from(
    { length: count },
    (_, i) =>
      `${offsets?.[i] ?? firstOffset + i} ${Buffer.from(bytes.subarray(i === 0 ? 0 : ends[i - 1], ends[i])).toString()}`,
  );

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

  test('P1: what Kafka answers with an error is not acknowledged', async () => {
    const log = await kafka.open({ partitions: 1 });
    const admin = silentKafka(kafka.brokers).admin();
    await admin.connect();
    const configEntries = [{ name: 'max.message.bytes', value: '1000' }];
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: log.topic, configEntries }];
    await admin.alterConfigs({ validateOnly: false, resources });
    await admin.disconnect();
    await expect(log.append([batchOf(0, ['x'.repeat(5_000)])])).rejects.toMatchObject({ name: 'LogUnavailable' });
    expect(await log.ranges()).toEqual([{ partition: 0, first: 0, end: 0 }]);
    await log.close();
  });

  test('P1: what Kafka no longer keeps is passed over and reported; a log that ends before the offset asked for stops, and says so', async () => {
    const log = await kafka.open({ partitions: 1 });
    for (const two of [
      ['a', 'b'],
      ['c', 'd'],
    ])
      await log.append([batchOf(0, two)]);
    const admin = silentKafka(kafka.brokers).admin();
    await admin.connect();
    // kafkajs deletes only where it has asked before.
    await admin.fetchTopicOffsets(log.topic);
    await admin.deleteTopicRecords({ topic: log.topic, partitions: [{ partition: 0, offset: '2' }] });
    await admin.disconnect();
    expect(await log.ranges()).toEqual([{ partition: 0, first: 2, end: 4 }]);
    const found: unknown[] = [];
    const consumer = await log.consume(async (partition) => {
      const read = async (from: number) => {
        partition.seek(from);
        for (;;) {
          const slice = await partition.read({ records: 10, bytes: 1_000 }, 100);
          if (slice !== undefined) return contentsOf(slice);
        }
      };
      found.push(
        await read(0),
        await read(5).catch((error: Error) => `${error.name}: ${error.message}`),
        await read(3),
      );
      await new Promise<void>((resolve) => partition.revoked.addEventListener('abort', () => resolve()));
    });
    await until(async () => (found.length > 0 ? true : undefined));
    await consumer.close();
    expect(log.counters().removedRecords).toBe(2);
    await log.close();
    expect(found).toEqual([
      ['2 c', '3 d'],
      expect.stringMatching(/^LogUnavailable: partition 0 ends at 4, before the offset 5 /),
      ['3 d'],
    ]);
  });
});
