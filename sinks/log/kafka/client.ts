/**
 * A client of the cluster that can always be thrown away: kafkajs's connections hang in several ways when a peer goes
 * silent (a handshake without an answer holds its lock for ever, a timed-out request leaves its dead socket in use), and
 * all of them are cured by destroying the sockets and beginning anew. Whoever uses it waits with a deadline, always.
 */
import net from 'node:net';
import tls from 'node:tls';
import { type ISocketFactory, Kafka, type KafkaConfig, logLevel, type SASLOptions } from 'kafkajs';
import Cluster from 'kafkajs/src/cluster/index.js';
import RequestQueue from 'kafkajs/src/network/requestQueue/index.js';
import { LogUnavailable } from '../port.ts';
import type { KafkaOptions, KafkaSecurity } from './options.ts';

const CONNECTION_TIMEOUT_MS = 3_000;
const METADATA_MAX_AGE_MS = 60_000;
/** kafkajs's own retries: few, because whoever calls retries with a deadline of their own. */
const RETRY = { retries: 2, initialRetryTime: 50, maxRetryTime: 500 };
const READ_COMMITTED = 1;

// After every answer kafkajs sets a timer to look for requests that wait; where none does, its delay is negative, which
// Node 24 warns of. Then there is nothing to look for.
const schedule = RequestQueue.prototype.scheduleCheckPendingRequests;
RequestQueue.prototype.scheduleCheckPendingRequests = function (this: RequestQueue) {
  if (this.pending.length > 0 || this.throttledUntil > Date.now()) schedule.call(this);
};

type ConnectionOptions = Pick<KafkaOptions, 'brokers' | 'security' | 'requestTimeoutMs' | 'logger'>;

/** kafkajs's configuration of ours; for its public API too. */
export function kafkaConfig(options: ConnectionOptions, clientId: string): KafkaConfig {
  return {
    clientId,
    brokers: [...options.brokers],
    connectionTimeout: CONNECTION_TIMEOUT_MS,
    authenticationTimeout: CONNECTION_TIMEOUT_MS,
    requestTimeout: options.requestTimeoutMs,
    retry: RETRY,
    ...securityOf(options.security),
    logLevel: logLevel.WARN,
    // What it says about connections is said by us once, when it matters.
    logCreator: () => (entry) => options.logger.debug({ ...entry.log, namespace: entry.namespace }, entry.log.message),
  };
}

function securityOf({ protocol, sasl, tls: given }: KafkaSecurity): Pick<KafkaConfig, 'ssl' | 'sasl'> {
  const options: Pick<KafkaConfig, 'ssl' | 'sasl'> = {};
  if (protocol === 'SSL' || protocol === 'SASL_SSL') options.ssl = { ...given };
  if (sasl !== undefined && (protocol === 'SASL_SSL' || protocol === 'SASL_PLAINTEXT')) options.sasl = saslOf(sasl);
  return options;
}

function saslOf({ mechanism, username, password }: NonNullable<KafkaSecurity['sasl']>): SASLOptions {
  switch (mechanism) {
    case 'PLAIN':
      return { mechanism: 'plain', username, password };
    case 'SCRAM-SHA-256':
      return { mechanism: 'scram-sha-256', username, password };
    case 'SCRAM-SHA-512':
      return { mechanism: 'scram-sha-512', username, password };
  }
}

/** One set of connections: appending, consuming and asking each have their own, so that none waits for another's answer. */
export class KafkaClient {
  readonly #options: ConnectionOptions & Pick<KafkaOptions, 'topic'>;
  readonly #name: string;
  #open: { cluster: Cluster; sockets: Set<net.Socket>; ready: Promise<void> } | undefined;
  #isStale = false;
  #closed = false;

  constructor(options: ConnectionOptions & Pick<KafkaOptions, 'topic'>, name: string) {
    this.#options = options;
    this.#name = name;
  }

  /**
   * Runs `task` with a connected cluster that knows the topic's leaders.
   * @throws {LogUnavailable} when it fails or does not end in time; the next run begins anew where that is needed
   */
  async run<T>(task: (cluster: Cluster) => Promise<T>, withinMs: number): Promise<T> {
    if (this.#closed) throw new LogUnavailable('the log is closed');
    const open = this.#connect();
    try {
      return await within(this.#runOn(open, task), withinMs);
    } catch (error) {
      this.#isStale = true;
      if (needsNewClient(error)) this.#discard(open.cluster);
      if (error instanceof LogUnavailable) throw error;
      throw new LogUnavailable(`Kafka: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  }

  /** Leaders may have moved: the next run asks who leads. */
  markStale(): void {
    this.#isStale = true;
  }

  /** Destroys the connections: whatever waits on them fails now. */
  reset(): void {
    if (this.#open !== undefined) this.#discard(this.#open.cluster);
  }

  close(): void {
    this.#closed = true;
    this.reset();
  }

  async #runOn<T>(
    open: { cluster: Cluster; ready: Promise<void> },
    task: (cluster: Cluster) => Promise<T>,
  ): Promise<T> {
    await open.ready;
    try {
      if (this.#isStale) {
        this.#isStale = false;
        await open.cluster.refreshMetadata();
      } else await open.cluster.refreshMetadataIfNecessary();
    } catch (error) {
      // No broker that it knows answers: begin anew from the configured ones.
      this.#discard(open.cluster);
      throw error;
    }
    return task(open.cluster);
  }

  #connect() {
    if (this.#open !== undefined) return this.#open;
    const sockets = new Set<net.Socket>();
    const config = kafkaConfig(this.#options, `tidemark-${this.#name}`);
    const cluster = new Cluster({
      logger: new Kafka(config).logger(),
      socketFactory: trackedSockets(sockets),
      brokers: [...this.#options.brokers],
      ssl: typeof config.ssl === 'object' ? config.ssl : undefined,
      sasl: typeof config.sasl === 'object' && 'username' in config.sasl ? config.sasl : undefined,
      clientId: `tidemark-${this.#name}`,
      connectionTimeout: CONNECTION_TIMEOUT_MS,
      authenticationTimeout: CONNECTION_TIMEOUT_MS,
      reauthenticationThreshold: 10_000,
      requestTimeout: this.#options.requestTimeoutMs,
      enforceRequestTimeout: true,
      metadataMaxAge: METADATA_MAX_AGE_MS,
      retry: RETRY,
      allowAutoTopicCreation: false,
      maxInFlightRequests: null,
      isolationLevel: READ_COMMITTED,
    });
    const ready = (async () => {
      await cluster.connect();
      await cluster.addTargetTopic(this.#options.topic);
    })();
    // Whoever runs waits for it; here it is only kept from being an unhandled rejection.
    ready.catch(() => this.#discard(cluster));
    this.#isStale = false;
    this.#open = { cluster, sockets, ready };
    return this.#open;
  }

  #discard(cluster: Cluster): void {
    if (this.#open?.cluster !== cluster) return;
    const { sockets } = this.#open;
    this.#open = undefined;
    cluster.disconnect().catch(() => undefined);
    for (const socket of sockets) socket.destroy(new Error('connection given up'));
  }
}

function trackedSockets(sockets: Set<net.Socket>): ISocketFactory {
  return ({ host, port, ssl, onConnect }) => {
    const socket =
      typeof ssl === 'object' && ssl !== null
        ? tls.connect({ host, port, ...(net.isIP(host) ? {} : { servername: host }), ...ssl }, onConnect)
        : net.connect({ host, port }, onConnect);
    socket.setKeepAlive(true, 30_000);
    socket.setNoDelay(true);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    return socket;
  };
}

/** Errors after which the connections are not to be trusted: silence, and states that kafkajs does not leave by itself. */
function needsNewClient(error: unknown): boolean {
  if (!(error instanceof Error)) return true;
  return (
    error.name === 'Overdue' ||
    error.name === 'KafkaJSRequestTimeoutError' ||
    error.name === 'KafkaJSLockTimeout' ||
    error.name === 'KafkaJSSASLAuthenticationError' ||
    error.name === 'TypeError'
  );
}

/** @throws Error named Overdue when `task` takes longer */
async function within<T>(task: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const overdue = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(Object.assign(new Error(`no answer within ${ms} ms`), { name: 'Overdue' })), ms);
  });
  try {
    return await Promise.race([task, overdue]);
  } finally {
    clearTimeout(timer);
  }
}
