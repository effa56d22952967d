/** The road with Apache Kafka as the log: broker, Tidemark, PostgreSQL and the load on the same machine. acks=all. */
import { randomFrom } from '../cli/demo/sample.ts';
import { partitionOf } from '../ingest/index.ts';
import { encodeEvent, type PlainEvent } from '../schemas/index.ts';
import type { KafkaLog, RecordBatch } from '../sinks/index.ts';
import { freshName, KafkaBroker } from '../test/support/kafka.ts';
import { openEmbeddedPostgresPool } from './database.ts';
import { makeLoad, postAll } from './load.ts';
import { KEY } from './process.ts';
import { add, fresh, median, RUNS, rate, SCRATCH, spread } from './report.ts';
import { check, drainBesideCopy } from './road.ts';

const PARTITIONS = 4;
const TENANTS = 200;
const ENDPOINTS = 5;
const MINUTES = 60;
/** share of events that come later than their time says, by up to the hour */
const LATE = 0.02;
const JOB_EVENTS = 2_000_000;
const PER_APPEND = 1_000;
const APPENDS_AT_ONCE = 8;

async function withBroker(task: (broker: KafkaBroker) => Promise<void>): Promise<void> {
  const broker = await KafkaBroker.start({ isForSpeed: true });
  try {
    await task(broker);
  } finally {
    await broker.dispose();
  }
}

const environment = (broker: KafkaBroker, topic: string) => ({
  KAFKA_BROKERS: broker.brokers.join(','),
  KAFKA_TOPIC: topic,
  KAFKA_GROUP: topic,
});

/** The job of bench.md: tenants × endpoints × minutes in the order of time, 2 % late, 5 % duplicates, 250 bytes an event on the log. */
function* jobEvents(events: number, from: number): Generator<{ event: PlainEvent; isRepeat: boolean }> {
  const random = randomFrom(7);
  const recent: PlainEvent[] = [];
  for (let i = 0; i < events; i++) {
    const repeat = i > 1_000 && random() < 0.05 ? recent[Math.floor(random() * recent.length)] : undefined;
    if (repeat !== undefined) {
      yield { event: repeat, isRepeat: true };
      continue;
    }
    const order = random() < LATE ? (i / events) * random() : i / events;
    const at = from + Math.floor(order * MINUTES * 60_000);
    const event: PlainEvent = {
      tenant: `tenant_${String(Math.floor(random() * TENANTS)).padStart(4, '0')}`,
      idempotency_key: `request-${String(i).padStart(12, '0')}`,
      source: null,
      keyed_by_source: false,
      // A type of no built-in meter but the one that takes every type: queue_wait, by endpoint.
      type: 'bench_call',
      timestamp: at,
      received_at: at,
      user_id: null,
      request_id: null,
      attributes: new Map([
        ['endpoint', { kind: 'string' as const, value: `/api/v1/endpoint${Math.floor(random() * ENDPOINTS)}` }],
        ['queue_wait_ms', { kind: 'long' as const, value: Math.floor(Math.exp(3 + random() * 4)) }],
        ['message', { kind: 'string' as const, value: 'The request was answered. '.repeat(4) }],
      ]),
      data: null,
    };
    recent[i % 5_000] = event;
    yield { event, isRepeat: false };
  }
}

interface Filled {
  distinct: number;
  waits: number;
  bytes: number;
  seconds: number;
}

/** Appends the job's events, `APPENDS_AT_ONCE` appends at a time; the clock runs while appends do. */
async function fill(log: KafkaLog, events: number): Promise<Filled> {
  const filled: Filled = { distinct: 0, waits: 0, bytes: 0, seconds: 0 };
  let parts: { bytes: Buffer[]; size: number }[] = [];
  let queue: RecordBatch[][] = [];
  const send = async () => {
    const began = performance.now();
    const work = queue.values();
    await Promise.all(
      Array.from({ length: APPENDS_AT_ONCE }, async () => {
        for (const batches of work) await log.append(batches);
      }),
    );
    filled.seconds += (performance.now() - began) / 1000;
    queue = [];
  };
  let count = 0;
  for (const { event, isRepeat } of jobEvents(events, Date.now() - 3 * 3_600_000)) {
    const tenant = Buffer.from(event.tenant);
    const partition = partitionOf(tenant, 0, tenant.length, PARTITIONS);
    const record = encodeEvent(event);
    filled.bytes += record.length;
    if (!isRepeat) {
      filled.distinct++;
      filled.waits += Number(event.attributes.get('queue_wait_ms')?.value ?? 0);
    }
    const part = parts[partition] ?? { bytes: [], size: 0 };
    part.bytes.push(Buffer.from(record));
    parts[partition] = part;
    if (++count % PER_APPEND === 0) {
      queue.push(parts.flatMap((one, p) => (one === undefined ? [] : [toBatch(p, one.bytes)])));
      parts = [];
    }
    if (queue.length === 100) await send();
  }
  await send();
  return filled;
}

function toBatch(partition: number, records: Buffer[]): RecordBatch {
  let end = 0;
  return {
    partition,
    count: records.length,
    bytes: Buffer.concat(records),
    ends: Uint32Array.from(records, (record) => (end += record.length)),
  };
}

export async function kafkaProduce(): Promise<void> {
  await withBroker(async (broker) => {
    for (const compression of ['none', 'lz4', 'zstd'] as const) {
      const own: number[] = [];
      for (let i = 0; i < RUNS; i++) {
        const log = await broker.open({ partitions: PARTITIONS, compression, deliveryTimeoutMs: 60_000 });
        const events = 500_000;
        const { seconds } = await fill(log, events);
        const written = (await log.ranges()).reduce((sum, { first, end }) => sum + end - first, 0);
        if (written !== events) throw new Error(`${written} records on the log, sent ${events}`);
        own.push(events / seconds);
        await log.close();
      }
      add(`Kafka, produce, acks=all, ${compression}`, `${rate(median(own), 1)} (${spread(own)})`, '–', '≥ 50,000');
    }
  });
}

export async function sameJob(): Promise<void> {
  await withBroker(async (broker) => {
    const topic = freshName('job');
    const log = await broker.open({ topic, partitions: PARTITIONS, compression: 'none', deliveryTimeoutMs: 60_000 });
    const filled = await fill(log, JOB_EVENTS);
    await log.close();
    const own: number[] = [];
    const rss: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      const server = await fresh('job', { ...environment(broker, topic), KAFKA_GROUP: `${topic}-${i}` });
      const before = (await server.reader.reconcile()).total.received;
      const began = performance.now();
      const seconds = await server.settled(began);
      own.push((JOB_EVENTS - before) / seconds);
      rss.push(server.rss());
      const database = await openEmbeddedPostgresPool(`${SCRATCH}job`);
      await database.checkRollups('queue_wait', { count: filled.distinct, sum: filled.waits });
      await database.close();
      await server.stop();
    }
    add(
      `same job, Kafka to committed, ${Math.round(filled.bytes / JOB_EVENTS)} bytes an event`,
      `${rate(median(own), 1)} (${spread(own)}), RSS ${Math.round(median(rss) / 1e6)} MB`,
      'Kafka Streams 96,000, Flink 140,000 events/s, neither keeps raw events',
      '≥ 100,000',
    );
  });
}

export async function kafkaPipeline(): Promise<void> {
  const events = 1_000_000;
  const now = Date.now();
  const load = makeLoad(events, 1000, 'kafka-pipeline', (i) => now - 3_600_000 + (i * 3_600_000) / events);
  await withBroker((broker) =>
    drainBesideCopy('pipeline, Kafka', 'kafka-pipeline', load, () => environment(broker, freshName('pipeline'))),
  );
}

export async function kafkaEndToEnd(): Promise<void> {
  const events = 500_000;
  await withBroker(async (broker) => {
    const own: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      const now = Date.now();
      const load = makeLoad(events, 1000, `kafka-e2e${i}`, () => now);
      const server = await fresh('kafka-e2e', environment(broker, freshName('e2e')));
      const began = performance.now();
      await postAll(server.url, KEY, load.bodies);
      own.push(events / (await server.settled(began)));
      await check(server, [load]);
      await server.stop();
    }
    add('end to end, Kafka', `${rate(median(own), 1)} (${spread(own)})`, '–', '≥ 40,000');
  });
}
