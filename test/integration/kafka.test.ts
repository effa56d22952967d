import { setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import avsc from 'avsc';
import { CompressionTypes, ConfigResourceTypes, Partitioners } from 'kafkajs';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { murmur2 } from '../../ingest/index.ts';
import { EVENT_SCHEMA_V1, encodeEvent, HEADER_V1 } from '../../schemas/index.ts';
import { checkKafka, KAFKA_DEFAULTS, type KafkaLog, pause } from '../../sinks/index.ts';
import { KafkaClient } from '../../sinks/log/kafka/client.ts';
import { freshName, silentKafka, startKafka, type TestKafka } from '../support/kafka.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { account, committed, drain, event, records, startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { startRegistry } from '../support/registry.ts';
import { until } from '../support/server.ts';

let kafka: TestKafka;
let database: TestDatabase;
const logs: KafkaLog[] = [];
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
beforeAll(async () => {
  database = await createTestDatabase();
});
afterEach(async () => {
  await Promise.all(logs.splice(0).map((log) => log.close()));
  await database.drop();
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.drop();
  await kafka.dispose();
});

async function open(options: Parameters<TestKafka['open']>[0] = {}): Promise<KafkaLog> {
  const log = await kafka.open({ partitions: 1, ...options });
  logs.push(log);
  return log;
}

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

/** Bytes that buffers hold which are still in use. */
function buffersInUse(): number {
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
}

test("P1, P4, P6: what foreign producers write becomes dead letters with its bytes and reason; tombstones, JSON, compression, headers, transactions and gaps don't stop the stream", async () => {
  const log = await open();
  const client = silentKafka(kafka.brokers);
  const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  const badOf = (name: string): [Buffer | null, string][] => {
    const whole = encodeEvent(event(`truncated-${name}`));
    const unknown = Buffer.from(whole);
    unknown[4] = 0;
    return [
      [null, 'undecodable'],
      [Buffer.from('{"some":"json"}'), 'undecodable'],
      [unknown, 'unknown_schema'],
      [whole.subarray(0, whole.length - 2), 'undecodable'],
      [Buffer.concat([Buffer.from([0, 0, 0, 0, 9]), whole.subarray(HEADER_V1.length)]), 'unknown_schema'],
      [Buffer.alloc(70_000, 7), 'undecodable'],
    ];
  };
  const bad = [badOf('plain'), badOf('zip')] as const;
  const send = (keys: string[], wrong: (typeof bad)[0], compression: CompressionTypes) =>
    producer.send({
      topic: log.topic,
      compression,
      messages: keys.flatMap((key, i) => {
        const [value] = wrong[i] ?? [];
        const good = { key: 'acme', value: encodeEvent(event(key)), headers: { trace: 'abc', more: ['x', 'y'] } };
        return value === undefined ? [good] : [good, { key: 'other', value }];
      }),
    });
  const keys = Array.from({ length: 20 }, (_, i) => `plain-${i}`);
  await send(keys, bad[0], CompressionTypes.None);
  await send(
    keys.map((key) => `zip-${key}`),
    bad[1],
    CompressionTypes.GZIP,
  );

  // A transaction that was aborted and one that was not: each leaves a marker, which takes an offset and is no record.
  const transactional = client.producer({
    transactionalId: freshName('transaction'),
    maxInFlightRequests: 1,
    idempotent: true,
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await transactional.connect();
  for (const outcome of ['abort', 'commit', 'abort'] as const) {
    const transaction = await transactional.transaction();
    await transaction.send({
      topic: log.topic,
      messages: ['a', 'b', 'c'].map((key) => ({ key: 'acme', value: encodeEvent(event(`${outcome}-${key}`)) })),
    });
    await transaction[outcome]();
  }
  await log.append([records(0, [event('last'), event('last')])]);
  await transactional.disconnect();
  await producer.disconnect();

  const [range] = await log.ranges();
  const visible = 2 * (20 + bad[0].length) + 3 + 2;
  expect(range).toEqual({ partition: 0, first: 0, end: visible + 6 + 3 });
  await drain(database.pool, log);
  expect(await account(database.pool)).toEqual({
    received: visible,
    accepted: 44,
    duplicate: 1,
    dead: 2 * bad[0].length,
  });
  const { rows: letters } = await database.pool.query<{ payload: Buffer; reason: string; at: number }>(
    'SELECT payload, reason, log_offset::int AS at FROM dead_letters ORDER BY log_offset',
  );
  expect(letters.map(({ payload, reason }) => [payload.toString('hex'), reason])).toEqual(
    bad.flat().map(([value, reason]) => [(value ?? Buffer.alloc(0)).toString('hex'), reason]),
  );
  expect(letters.slice(0, 3).map(({ at }) => at)).toEqual([1, 3, 5]);
  const { rows: raw } = await database.pool.query<{ key: string; at: number }>(
    `SELECT idempotency_key AS key, log_offset::int AS at FROM events WHERE idempotency_key LIKE 'commit-%' OR idempotency_key = 'last' ORDER BY log_offset`,
  );
  // Behind 52 records: 3 aborted and their marker, 3 committed.
  expect(raw.slice(0, 3)).toEqual(['a', 'b', 'c'].map((key, i) => ({ key: `commit-${key}`, at: 56 + i })));
  process.stdout.write(
    `foreign messages: ${visible} records, ${letters.length} dead letters, 9 offsets without a record\n`,
  );
});

test.each(['none', 'gzip', 'lz4', 'zstd'] as const)(
  'compression %s: written by us, read by us and, where it can, by kafkajs; keyed and partitioned as by any other client',
  async (compression) => {
    const log = await open({ compression });
    const events = Array.from({ length: 3_000 }, (_, i) => event(`k${i}`, { tenant: `tenant-${i % 7}` }));
    await log.append([records(0, events)]);
    await drain(database.pool, log);
    expect(await account(database.pool)).toMatchObject({ received: 3_000, accepted: 3_000 });
    if (compression === 'lz4' || compression === 'zstd') return;
    const consumer = silentKafka(kafka.brokers).consumer({ groupId: freshName('other') });
    await consumer.connect();
    await consumer.subscribe({ topic: log.topic, fromBeginning: true });
    const schema = avsc.Type.forSchema(EVENT_SCHEMA_V1);
    let count = 0;
    await new Promise<void>((resolve, reject) => {
      consumer
        .run({
          eachMessage: async ({ message }) => {
            const value = schema.fromBuffer((message.value ?? Buffer.alloc(0)).subarray(HEADER_V1.length));
            expect([value.tenant, value.idempotency_key]).toEqual([message.key?.toString(), `k${count}`]);
            if (++count === events.length) resolve();
          },
        })
        .catch(reject);
    });
    await consumer.disconnect();
  },
);

test('murmur2 is that of the Java client, as kafkajs has it too', () => {
  // Kafka's UtilsTest.testMurmur2
  const known: [string, number][] = [
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ];
  for (const [key, hash] of known) expect([key, murmur2(Buffer.from(key))]).toEqual([key, hash]);
  const partitioner = Partitioners.DefaultPartitioner();
  const metadata = Array.from({ length: 7 }, (_, partitionId) => ({ partitionId, leader: 1 }));
  for (let i = 0; i < 200; i++) {
    const key = `tenant-${i}-é`;
    const theirs = partitioner({ topic: 't', partitionMetadata: metadata as never, message: { key, value: null } });
    expect((murmur2(Buffer.from(key)) & 0x7fffffff) % 7).toBe(theirs);
  }
});

describe('with a schema registry', () => {
  test("Confluent's wire format is written and read, older single-object records too; unknown ids are dead letters", async () => {
    const registry = await startRegistry();
    const topic = freshName('registry');
    const before = await open({ topic });
    await before.append([records(0, [event('older')])]);
    const foreign = registry.put('{"type":"record","name":"Other","fields":[{"name":"a","type":"long"}]}');
    const log = await open({ topic, schemaRegistry: { url: registry.url } });
    await log.append([records(0, [event('a'), event('b')])]);
    // Another program with a schema that differs only in what the canonical form leaves out.
    const same = registry.put(JSON.stringify({ ...(EVENT_SCHEMA_V1 as object), doc: 'ours, with other words' }));
    const body = encodeEvent(event('theirs')).subarray(HEADER_V1.length);
    const framed = (id: number, bytes: Uint8Array) => {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(id, 1);
      return Buffer.concat([head, bytes]);
    };
    const producer = silentKafka(kafka.brokers).producer({ createPartitioner: Partitioners.DefaultPartitioner });
    await producer.connect();
    const wrong = [framed(foreign, Buffer.from([2])), framed(4711, body)];
    await producer.send({ topic, messages: [framed(same, body), ...wrong].map((value) => ({ key: 'acme', value })) });
    await producer.disconnect();
    await drain(database.pool, log);
    expect(await account(database.pool)).toEqual({ received: 6, accepted: 4, duplicate: 0, dead: 2 });
    const { rows } = await database.pool.query<{ payload: Buffer; reason: string; detail: string }>(
      'SELECT payload, reason, detail FROM dead_letters ORDER BY log_offset',
    );
    expect(rows.map(({ payload, reason, detail }) => [payload.toString('hex'), reason, detail])).toEqual([
      [wrong[0]?.toString('hex'), 'unknown_schema', `registry id ${foreign}`],
      [wrong[1]?.toString('hex'), 'unknown_schema', 'registry id 4711'],
    ]);
    expect(registry.seen).toContain(`POST /subjects/${topic}-value/versions`);
    // Who reads with the registry's own client sees the event.
    const { SchemaRegistry } = await import('@kafkajs/confluent-schema-registry');
    const reader = new SchemaRegistry({ host: registry.url });
    const consumer = silentKafka(kafka.brokers).consumer({ groupId: freshName('other') });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    const third = await new Promise<Buffer>((resolve) => {
      void consumer.run({
        eachMessage: async ({ message }) => {
          if (message.offset === '2' && message.value !== null) resolve(message.value);
        },
      });
    });
    await consumer.disconnect();
    expect(await reader.decode(third)).toMatchObject({ tenant: 'acme', idempotency_key: 'b' });
    await registry.close();
  });

  test('a registry that is away stops the log from opening, with a clear error', async () => {
    await expect(open({ schemaRegistry: { url: 'http://127.0.0.1:1' } })).rejects.toMatchObject({
      name: 'LogUnavailable',
      message: expect.stringContaining('schema registry'),
    });
  });
});

test('doctor: what is wrong with the topic is said, and a cluster that is away is a finding', async () => {
  const log = await open();
  const logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const checks = await checkKafka({ brokers: kafka.brokers, topic: log.topic, partitions: 4, logger });
  const byName = new Map(checks.map((check) => [check.name, check]));
  expect(byName.get('kafka')?.ok).toBe(true);
  expect(byName.get('kafka partitions')).toMatchObject({ ok: false, detail: '1, LOG_PARTITIONS is 4' });
  expect(byName.get('kafka replication')).toMatchObject({ ok: false });
  expect(byName.get('kafka min.insync.replicas')).toMatchObject({ ok: false });
  for (const name of ['retention', 'cleanup.policy', 'max.message.bytes', 'in-sync replicas'])
    expect(byName.get(`kafka ${name}`)).toMatchObject({ ok: true });
  const admin = silentKafka(kafka.brokers).admin();
  await admin.connect();
  const wrong = {
    'retention.ms': '1000',
    'retention.bytes': '1000',
    'cleanup.policy': 'compact',
    'max.message.bytes': '1000',
  };
  const configEntries = Object.entries(wrong).map(([name, value]) => ({ name, value }));
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: log.topic, configEntries }],
  });
  await admin.disconnect();
  const spoilt = await checkKafka({ brokers: kafka.brokers, topic: log.topic, partitions: 1, logger });
  expect(spoilt.filter(({ ok }) => ok).map(({ name }) => name)).toEqual([
    'kafka',
    'kafka partitions',
    'kafka in-sync replicas',
  ]);
  expect(spoilt.map(({ name }) => name)).toEqual(
    expect.arrayContaining(
      ['retention', 'retention.bytes', 'cleanup.policy', 'max.message.bytes'].map((name) => `kafka ${name}`),
    ),
  );
  const away = await checkKafka({ brokers: ['127.0.0.1:1'], requestTimeoutMs: 500, logger });
  expect(away).toEqual([{ name: 'kafka', ok: false, detail: expect.stringContaining('127.0.0.1:1') }]);
});

test("Kafka's own offsets, which lag tools read, follow the database: none while it stands still, the end when all is counted", async () => {
  const name = freshName('hints');
  const log = await open({ topic: name, group: name });
  await log.append([records(0, [event('a'), event('b')])]);
  const admin = silentKafka(kafka.brokers).admin();
  await admin.connect();
  const told = async () => (await admin.fetchOffsets({ groupId: name, topics: [name] }))[0]?.partitions[0]?.offset;
  const blocker = await database.pool.connect();
  await blocker.query('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
  const running = await startProcessors(database.pool, log);
  try {
    await until(async () => {
      const { rows } = await database.pool.query(
        `SELECT FROM pg_locks WHERE NOT granted AND relation = 'tidemark.events'::regclass`,
      );
      return rows.length > 0 ? true : undefined;
    });
    // Several heartbeats, each of which would tell.
    await delay(1_500);
    expect(await told()).toBe('-1');
  } finally {
    await blocker.query('COMMIT');
    blocker.release();
  }
  await committed(database.pool, 2);
  await running.stop();
  expect(await told()).toBe('2');
  await admin.disconnect();
});

test('P5: a member that the group has removed stops its owners with the next heartbeat, not after a session timeout, and joins again', async () => {
  const group = freshName('removed');
  const log = await open({ group, sessionTimeoutMs: 30_000 });
  const owned: AbortSignal[] = [];
  const consumer = await log.consume(async ({ revoked }) => {
    owned.push(revoked);
    await pause(60_000, revoked);
  });
  await until(async () => owned.length === 1 || undefined);
  const admin = silentKafka(kafka.brokers).admin();
  await admin.connect();
  const member = (await admin.describeGroups([group])).groups[0]?.members[0];
  await admin.disconnect();
  const client = new KafkaClient(
    { ...KAFKA_DEFAULTS, brokers: kafka.brokers, topic: log.topic, logger: pino({ level: 'silent' }) },
    'test',
  );
  await client.run(
    async (cluster) =>
      (await cluster.findGroupCoordinator({ groupId: group })).leaveGroup({
        groupId: group,
        memberId: member?.memberId ?? '',
      }),
    5_000,
  );
  client.close();
  await until(async () => owned.length === 2 || undefined, 10_000);
  expect(owned.map(({ aborted }) => aborted)).toEqual([true, false]);
  await consumer.close();
});

test('P13: appends beyond the buffer are refused at once, and counters say what was done', async () => {
  const log = await open({ bufferBytes: 100_000, lingerMs: 50 });
  const one = () => records(0, [event('big', { data: JSON.stringify({ text: 'x'.repeat(60_000) }) })]);
  const first = log.append([one()]);
  await expect(log.append([one()])).rejects.toMatchObject({ name: 'LogUnavailable' });
  await first;
  expect(log.counters()).toMatchObject({ producedBatches: 1, producedRecords: 1, produceRequests: 1 });
  await drain(database.pool, log);
  expect(log.counters()).toMatchObject({ rebalances: 1, assigned: 0, offsetCommits: expect.any(Number) });
  expect(log.counters().offsetCommits).toBeGreaterThan(0);
});

test('P13: a big backlog and a database that stands still: what is fetched ahead stays within its setting; all is counted once it moves again', async () => {
  const [events, text, prefetch, batch] = [3_000, 20_000, 1 << 20, 20];
  const log = await open({ partitions: 4, prefetchBytes: prefetch, batchBytes: 60_000 });
  for (let i = 0; i < events; i += 100)
    await log.append([
      records(
        (i / 100) % 4,
        Array.from({ length: 100 }, (_, j) => event(`b${i + j}`, { data: JSON.stringify({ text: 'x'.repeat(text) }) })),
      ),
    ]);
  const blocker = await database.pool.connect();
  await blocker.query('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
  const before = buffersInUse();
  const running = await startProcessors(database.pool, log, { settings: { ...TEST_SETTINGS, batchEvents: batch } });
  try {
    // Until no more comes: every partition has what it may have.
    let seen = -1;
    await until(async () => {
      await delay(500);
      const { fetchedBytes } = log.counters();
      if (fetchedBytes > prefetch / 2 && fetchedBytes === seen) return true;
      seen = fetchedBytes;
      return undefined;
    });
    // Beside what waits: a record batch more than asked for, and three batches of the processors, by partition.
    const most = prefetch + 4 * (60_000 + 3 * batch * (text + 500));
    expect(log.counters().fetchedBytes).toBeLessThan(most);
    const grown = buffersInUse() - before;
    expect(grown).toBeLessThan((events * text) / 2);
    process.stdout.write(
      `backlog of ${(events * text) >> 20} MB, database standing still: ${(log.counters().fetchedBytes / 2 ** 20).toFixed(1)} MB fetched, buffers grew by ${(grown / 2 ** 20).toFixed(1)} MB\n`,
    );
  } finally {
    await blocker.query('COMMIT');
    blocker.release();
  }
  await committed(database.pool, events);
  await running.stop();
  expect(await account(database.pool)).toEqual({ received: events, accepted: events, duplicate: 0, dead: 0 });
});

test.each(['gzip', 'lz4', 'zstd'] as const)(
  'P6, P13: a batch of a few kilobytes that would unpack to 80 MB (%s) is one dead letter as it came; what is behind it counts',
  async (compression) => {
    const log = await open({ compression, bufferBytes: 100 << 20 });
    await log.append([records(0, [Buffer.alloc(80 << 20)])]);
    await log.append([records(0, [event('behind')])]);
    await drain(database.pool, log);
    expect(await account(database.pool)).toEqual({ received: 2, accepted: 1, duplicate: 0, dead: 1 });
    const { rows } = await database.pool.query(
      'SELECT reason, detail, length(payload) < 1e6 AS is_packed FROM dead_letters',
    );
    expect(rows).toEqual([{ reason: 'undecodable', detail: expect.stringContaining('record batch'), is_packed: true }]);
  },
);
