/** What may happen to a real Kafka and the way to it. Each test says what it did and how many events it checked. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshName, KafkaBroker } from '../support/kafka.ts';
import { Ledger } from '../support/ledger.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, records, startProcessors } from '../support/processors.ts';
import { TcpProxy, type Weather } from '../support/proxy.ts';
import { TestServer, until } from '../support/server.ts';

let broker: KafkaBroker;
let database: TestDatabase;
/** The way to the broker that its metadata names, and the way to the database. */
let toBroker: TcpProxy;
let toDatabase: TcpProxy;
const servers: TestServer[] = [];

beforeAll(async () => {
  let port = 0;
  toBroker = await TcpProxy.start(() => ({ host: '127.0.0.1', port }));
  broker = await KafkaBroker.start({ behind: toBroker.address });
  port = broker.proxiedPort;
  database = await createTestDatabase();
  const url = new URL(database.url);
  toDatabase = await TcpProxy.start(() => ({ host: url.hostname, port: Number(url.port) }));
}, 120_000);
afterAll(async () => {
  await Promise.all(servers.map((server) => server.dispose()));
  await broker.dispose();
  await toBroker.close();
  await toDatabase.close();
  await database.drop();
});

const said = (what: string, ledger: Ledger) =>
  process.stdout.write(`${what}: ${ledger.size} distinct events, each counted once\n`);

/** Short deadlines, so that faults are noticed within a test. */
const IMPATIENT = {
  KAFKA_SESSION_TIMEOUT_MS: '2000',
  KAFKA_REBALANCE_TIMEOUT_MS: '5000',
  KAFKA_REQUEST_TIMEOUT_MS: '1500',
  APPEND_DEADLINE_MS: '3000',
  DATABASE_SILENCE_MS: '4000',
  PROCESSOR_BATCH_EVENTS: '200',
  PROCESSOR_LINGER_MS: '0',
};

async function startServer(env: Record<string, string>): Promise<TestServer> {
  const server = new TestServer();
  servers.push(server);
  await server.start({ ...IMPATIENT, ...env });
  return server;
}

/** An environment of its own: another topic, another group, another database. */
async function environment(brokers: string): Promise<{ env: Record<string, string>; database: TestDatabase }> {
  const own = await createTestDatabase();
  const name = freshName('faults');
  return {
    database: own,
    env: { KAFKA_BROKERS: brokers, KAFKA_TOPIC: name, KAFKA_GROUP: name, DATABASE_URL: own.url },
  };
}

/** Sends again until acknowledged, as a client does. @returns how often it was told to wait */
async function deliver(server: TestServer, lines: readonly string[]): Promise<number> {
  let refusals = 0;
  await until(async () => {
    const answer = await server.post(lines);
    if (answer.status === 204) return true;
    // Nothing else may be answered, and always with a hint when to come again.
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, expect.stringMatching(/^\d+$/)]);
    refusals++;
    return undefined;
  }, 60_000);
  return refusals;
}

test('P1, P2, P4: kill -9 of the broker while records are produced and consumed; 503 meanwhile, and all is counted once', async () => {
  const { env, database: own } = await environment(broker.brokers.join(','));
  const server = await startServer(env);
  const ledger = new Ledger();
  let refusals = 0;
  for (let round = 0; round < 2; round++) {
    const sending = (async () => {
      for (let i = 0; i < 12; i++) refusals += await deliver(server, ledger.makeLines(300));
    })();
    await until(async () => (ledger.size > 1_500 * (round + 0.5) ? true : undefined));
    await broker.kill9();
    const began = performance.now();
    const lines = ledger.makeLines(10);
    const refused = await server.post(lines);
    if (refused.status !== 204) {
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1']);
      expect(performance.now() - began).toBeLessThan(10_000);
    }
    expect((await server.request('/readyz')).status).toBe(503);
    await broker.restart();
    await sending;
    // What was refused is sent again.
    if (refused.status !== 204) await deliver(server, lines);
    await ledger.verify(server);
  }
  expect(refusals).toBeGreaterThan(0);
  said(`broker killed twice, ${refusals} requests were told to wait`, ledger);
  await server.stop();
  await own.drop();
}, 180_000);

/** A process's state, field 3 of /proc/<pid>/stat (proc(5)): `T` is stopped. */
const stateOf = (pid: number) => /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1];

test('P5: a processor that was frozen with a batch in hand past its session timeout changes nothing when it wakes', async () => {
  const { env, database: own } = await environment(broker.brokers.join(','));
  const front = await startServer({ ...env, ROLES: 'ingest,query' });
  const first = await startServer({
    ...env,
    ROLES: 'processors',
    LOG_LEVEL: 'info',
    // Before any other batch: one in flight, ended by the server meanwhile, would take this one with it.
    TIDEMARK_TEST_KILL_AT: 'prepared:1:freeze',
  });
  const ledger = new Ledger();
  for (let i = 0; i < 10; i++) await deliver(front, ledger.makeLines(300));
  await until(async () => (stateOf(first.pid) === 'T' ? true : undefined));
  const { rows: held } = await own.pool.query<{ partition: number; epoch: string }>(
    'SELECT partition, epoch FROM log_offsets',
  );
  expect(held.length).toBeGreaterThan(0);
  for (let i = 0; i < 5; i++) await deliver(front, ledger.makeLines(300));
  const second = await startServer({ ...env, ROLES: 'processors', LOG_LEVEL: 'info' });
  await ledger.verify(front);
  const { rows: before } = await own.pool.query<{ partition: number; next: string; epoch: string }>(
    'SELECT partition, next, epoch FROM log_offsets ORDER BY 1',
  );
  // Each partition was taken over by raising its epoch: nothing of the first's fits any more.
  for (const { partition, epoch } of held)
    expect(Number(before.find((one) => one.partition === partition)?.epoch)).toBeGreaterThan(Number(epoch));
  first.signal('SIGCONT');
  // It finds out that it was left, and joins again as a new member.
  await until(async () => (/no member of the group|not heard of/.test(first.output) ? true : undefined));
  const { rows: after } = await own.pool.query('SELECT partition, next FROM log_offsets ORDER BY 1');
  expect(after).toEqual(before.map(({ partition, next }) => ({ partition, next })));
  await ledger.verify(front);
  for (let i = 0; i < 5; i++) await deliver(front, ledger.makeLines(300));
  await ledger.verify(front);
  said('processor frozen past its session timeout, another took over, the first woke', ledger);
  await Promise.all([first.stop(), second.stop(), front.stop()]);
  await own.drop();
}, 180_000);

test('P1, P2, P4: a storm of rebalances under load', async () => {
  const seconds = Number(process.env.KAFKA_STORM_SECONDS ?? 8);
  const own = await createTestDatabase();
  const name = freshName('storm');
  const open = () => broker.open({ topic: name, group: name, sessionTimeoutMs: 2_000, rebalanceTimeoutMs: 4_000 });
  const front = await open();
  const members: { log: Awaited<ReturnType<typeof open>>; stop(): Promise<void> }[] = [];
  const join = async () => {
    const log = await open();
    members.push({ log, stop: (await startProcessors(own.pool, log)).stop });
  };
  const leave = async () => {
    const member = members.shift();
    await member?.stop();
    await member?.log.close();
  };
  await join();
  const deadline = performance.now() + seconds * 1_000;
  let sent = 0;
  let appended = 0;
  const load = (async () => {
    while (performance.now() < deadline) {
      const batches = [0, 1, 2, 3].map((partition) =>
        records(
          partition,
          // Every fifth was sent before.
          Array.from({ length: 50 }, (_, i) =>
            event(`p${partition}-${i % 5 === 0 && sent > 0 ? sent - 1 : sent}-${i}`),
          ),
        ),
      );
      await front.append(batches);
      appended += 200;
      sent++;
      await delay(20);
    }
  })();
  let changes = 0;
  while (performance.now() < deadline) {
    await (changes % 2 === 0 ? join() : leave());
    changes++;
    await delay(1_000);
  }
  await load;
  await committed(own.pool, appended);
  while (members.length > 0) await leave();
  const distinct = new Set<string>();
  for (let s = 0; s < sent; s++) for (let i = 0; i < 50; i++) distinct.add(`${i % 5 === 0 && s > 0 ? s - 1 : s}-${i}`);
  const { rows } = await own.pool.query(
    `SELECT (SELECT count(*)::int FROM events) AS raw, (SELECT sum(accepted)::int FROM accounting) AS accepted,
       (SELECT sum(received)::int FROM accounting) AS received, (SELECT sum(count)::int FROM rollups_minute WHERE meter_id = 1) AS counted,
       (SELECT sum(epoch)::int FROM log_offsets) AS epochs`,
  );
  const expected = distinct.size * 4;
  expect(rows[0]).toMatchObject({ raw: expected, accepted: expected, received: appended, counted: expected });
  process.stdout.write(
    `${changes} members joined or left in ${seconds} s, ${(rows[0] as { epochs: number }).epochs} owners: ${appended} records, ${expected} distinct events, each counted once\n`,
  );
  await front.close();
  await own.drop();
}, 180_000);

test('P1, P2, P4: a network that is slow, cuts or goes silent, to the broker and to the database', async () => {
  const { env, database: own } = await environment(toBroker.address);
  const url = new URL(own.url);
  url.host = toDatabase.address;
  const server = await startServer({ ...env, DATABASE_URL: url.toString() });
  const ledger = new Ledger();
  let refusals = 0;
  const weathers: [TcpProxy, string, Weather][] = [
    [toBroker, 'broker', 'slow'],
    [toBroker, 'broker', 'cut'],
    [toBroker, 'broker', 'silent'],
    [toDatabase, 'database', 'slow'],
    [toDatabase, 'database', 'cut'],
    [toDatabase, 'database', 'silent'],
  ];
  for (const [proxy, to, weather] of weathers) {
    const known = ledger.size;
    refusals += await deliver(server, ledger.makeLines(300));
    proxy.set(weather);
    const sending = (async () => {
      for (let i = 0; i < 4; i++) refusals += await deliver(server, ledger.makeLines(200));
    })();
    await delay(2_500);
    proxy.set('fine');
    await sending;
    await ledger.verify(server);
    process.stdout.write(
      `way to the ${to} ${weather} for 2.5 s: ${ledger.size - known} distinct events, each counted once\n`,
    );
  }
  said(`all weathers, ${refusals} requests were told to wait`, ledger);
  await server.stop();
  await own.drop();
}, 240_000);
