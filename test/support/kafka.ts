/** A real Kafka for tests: KRaft, one process as broker and controller, on free ports, in a folder of its own. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Kafka, logLevel } from 'kafkajs';
import { freePort, type KafkaLog, type KafkaOptions, openKafkaLog } from '../../sinks/index.ts';
import { requireCommand } from './requirements.ts';
import { until } from './server.ts';

const HERE = fileURLToPath(new URL('./kafka/', import.meta.url));
const JARS = join(HERE, 'jars');
const READY_WITHIN_MS = 60_000;
const LOCK_STALE_MS = 300_000;

export interface BrokerSettings {
  /** address of a proxy: a second listener says of itself that it is there */
  behind?: string;
  /** settings of a third listener, SASL over TLS */
  secure?: Record<string, string>;
  /** a JVM that compiles for speed, for benches; tests want one that starts quickly */
  isForSpeed?: boolean;
  /** arguments of `kafka-storage format`, such as SCRAM credentials */
  format?: readonly string[];
}

/** A cluster to test against. */
export interface TestKafka {
  brokers: string[];
  /** Another topic and group each time, and a log on them; options win. */
  open(options?: Partial<KafkaOptions>): Promise<KafkaLog>;
  dispose(): Promise<void>;
}

interface Ports {
  plain: number;
  proxied: number;
  secure: number;
}

/** One broker that can be killed, stopped and started again. */
export class KafkaBroker implements TestKafka {
  readonly brokers: string[];
  /** where the listener is that a proxy is in front of */
  readonly proxiedPort: number;
  /** where the listener with SASL over TLS is */
  readonly secureAddress: string;
  readonly #folder: string;
  readonly #java: string;
  readonly #isForSpeed: boolean;
  #child: ChildProcess | undefined;
  #exited: Promise<unknown> = Promise.resolve();

  private constructor(folder: string, java: string, ports: Ports, isForSpeed: boolean) {
    this.proxiedPort = ports.proxied;
    this.secureAddress = `127.0.0.1:${ports.secure}`;
    this.#folder = folder;
    this.#java = java;
    this.#isForSpeed = isForSpeed;
    this.brokers = [`127.0.0.1:${ports.plain}`];
  }

  /** Formats storage and starts; resolves when the broker answers. */
  static async start(settings: BrokerSettings = {}): Promise<KafkaBroker> {
    const java = requireCommand({ commands: ['java'], packages: ['openjdk-17-jre-headless'] });
    await requireJars();
    const [port, controller, proxied, secure] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
    const isSecure = settings.secure !== undefined;
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-kafka-'));
    const properties = {
      'process.roles': 'broker,controller',
      'node.id': '1',
      'controller.quorum.voters': `1@127.0.0.1:${controller}`,
      'controller.listener.names': 'CONTROLLER',
      listeners: `PLAINTEXT://127.0.0.1:${port},PROXIED://127.0.0.1:${proxied},CONTROLLER://127.0.0.1:${controller}${isSecure ? `,SASL_SSL://127.0.0.1:${secure}` : ''}`,
      'advertised.listeners': `PLAINTEXT://127.0.0.1:${port},PROXIED://${settings.behind ?? `127.0.0.1:${proxied}`}${isSecure ? `,SASL_SSL://127.0.0.1:${secure}` : ''}`,
      'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL',
      'log.dirs': join(folder, 'logs'),
      'offsets.topic.replication.factor': '1',
      'offsets.topic.num.partitions': '1',
      'transaction.state.log.replication.factor': '1',
      'transaction.state.log.min.isr': '1',
      'group.initial.rebalance.delay.ms': '0',
      'group.min.session.timeout.ms': '500',
      'auto.create.topics.enable': 'false',
      ...settings.secure,
    };
    const file = join(folder, 'server.properties');
    writeFileSync(
      file,
      Object.entries(properties)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
    );
    const broker = new KafkaBroker(folder, java, { plain: port, proxied, secure }, settings.isForSpeed ?? false);
    execFileSync(
      java,
      [
        ...jvm(folder, false),
        'kafka.tools.StorageTool',
        'format',
        '-t',
        'MkU3OEVBNTcwNTJENDM2Qg',
        '-c',
        file,
        ...(settings.format ?? []),
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    await broker.restart();
    return broker;
  }

  /** Starts it (again) on the same data. */
  async restart(): Promise<void> {
    const log = openSync(join(this.#folder, 'out.log'), 'a');
    const child = spawn(
      this.#java,
      [...jvm(this.#folder, this.#isForSpeed), 'kafka.Kafka', join(this.#folder, 'server.properties')],
      {
        stdio: ['ignore', log, log],
      },
    );
    closeSync(log);
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once('exit', resolve));
    process.once('exit', () => child.kill('SIGKILL'));
    await this.#ready();
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  async kill9(): Promise<void> {
    this.signal('SIGKILL');
    await this.#exited;
  }

  open(options: Partial<KafkaOptions> = {}): Promise<KafkaLog> {
    return openTestLog(this.brokers, options);
  }

  async dispose(): Promise<void> {
    await this.kill9();
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async #ready(): Promise<void> {
    let gone = false;
    this.#exited.then(() => {
      gone = true;
    });
    await until(async () => {
      if (gone) return true;
      const admin = silentKafka(this.brokers).admin();
      try {
        await admin.connect();
        await admin.listTopics();
        return true;
      } finally {
        await admin.disconnect();
      }
    }, READY_WITHIN_MS);
    if (gone) throw new Error(`Kafka ended: ${readFileSync(join(this.#folder, 'out.log'), 'utf8').slice(-2_000)}`);
  }
}

/** KAFKA_BROKERS, or a broker of our own. */
export async function startKafka(): Promise<TestKafka> {
  const given = process.env.KAFKA_BROKERS;
  if (!given) return KafkaBroker.start();
  const brokers = given.split(',').map((one) => one.trim());
  return { brokers, open: (options = {}) => openTestLog(brokers, options), dispose: async () => undefined };
}

/** A name that no other test has. */
export const freshName = (what: string): string => `tidemark-test-${what}-${randomBytes(6).toString('hex')}`;

/** kafkajs as any other program uses it, without its chatter. */
export const silentKafka = (brokers: readonly string[]): Kafka =>
  new Kafka({ brokers: [...brokers], clientId: 'test', logLevel: logLevel.NOTHING, retry: { retries: 2 } });

const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

function openTestLog(brokers: readonly string[], options: Partial<KafkaOptions>): Promise<KafkaLog> {
  const name = freshName('log');
  return openKafkaLog({
    topic: name,
    group: name,
    logger: silent,
    sessionTimeoutMs: 2_000,
    rebalanceTimeoutMs: 5_000,
    brokers,
    ...options,
  });
}

/** Kafka's jars, by Maven, once: the folder survives between runs. */
async function requireJars(): Promise<void> {
  if (existsSync(JARS)) return;
  const lock = join(HERE, '.lock');
  for (;;) {
    try {
      closeSync(openSync(lock, 'wx'));
      break;
    } catch {
      // Another worker is at it.
      await delay(200);
      if (existsSync(JARS)) return;
      if (existsSync(lock) && Date.now() - statSync(lock).mtimeMs > LOCK_STALE_MS) rmSync(lock, { force: true });
    }
  }
  try {
    if (existsSync(JARS)) return;
    const maven = requireCommand({ commands: ['mvn'], packages: ['maven', 'openjdk-17-jre-headless'] });
    const target = `${JARS}.new`;
    rmSync(target, { recursive: true, force: true });
    const command = [
      '-q',
      '-B',
      '-f',
      join(HERE, 'pom.xml'),
      'dependency:copy-dependencies',
      `-DoutputDirectory=${target}`,
    ];
    process.stderr.write(`tests need Apache Kafka: ${maven} ${command.join(' ')}\n`);
    execFileSync(maven, command, { stdio: ['ignore', 'ignore', 'inherit'] });
    renameSync(target, JARS);
  } finally {
    rmSync(lock, { force: true });
  }
}

/** A small JVM; a quick one unless it is for speed. */
function jvm(folder: string, isForSpeed: boolean): string[] {
  return [
    '-Xms256m',
    '-Xmx768m',
    '-XX:+UseG1GC',
    ...(isForSpeed ? [] : ['-XX:TieredStopAtLevel=1']),
    `-Dkafka.logs.dir=${folder}`,
    `-Dlog4j2.configurationFile=${join(HERE, 'log4j2.properties')}`,
    '-cp',
    join(JARS, '*'),
  ];
}
