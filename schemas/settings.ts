/**
 * Every setting, in one table: the reader, the check and the manual's list come from it.
 */
import { TidemarkError } from './errors.ts';
import type { Tier } from './principal.ts';
import {
  choice,
  integer,
  type Optional,
  optional,
  parseBrokers,
  parseBucket,
  parseDatabaseUrl,
  parseHttpUrl,
  parsePrefix,
  parseRoles,
  parseSmtpUrl,
  parseSpread,
  type Rate,
  ROLES,
  type Role,
  rate,
  type Setting,
  secret,
  text,
} from './setting-kinds.ts';

const TABLE = {
  PORT: integer(8080, 0, 65535, 'TCP port of the HTTP server; 0 takes a free one'),
  HOST: text('127.0.0.1', 'Address to listen on'),
  TIDEMARK_DATA: text('./data', 'Folder of everything embedded: database, event log, keys'),
  TIDEMARK_ADMIN_KEY: secret('First platform key, all scopes; made and kept in the data folder where unset', 32),
  DATABASE_URL: { ...secret('PostgreSQL ≥ 15 to use instead of the embedded one'), parse: parseDatabaseUrl },
  DATABASE_POOL: integer(12, 4, 500, 'Most connections of one process to the database'),
  LOG_LEVEL: choice(
    'info',
    ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'],
    'Least level that is logged',
  ),
  LOG_PARTITIONS: integer(4, 1, 1024, 'Partitions of the event log; fixed when it is made'),
  ROLES: {
    initial: ROLES.join(','),
    about: 'What this process does',
    parse: (value: string) => parseRoles(value),
  } satisfies Setting<ReadonlySet<Role>>,
  UNKNOWN_TENANTS: choice('create', ['create', 'reject'], 'What an event of an unknown customer_id does'),
  IDEMPOTENCY_WINDOW_DAYS: integer(
    35,
    1,
    400,
    'Days for which a key is remembered; older events are rejected (too_old)',
  ),
  MAX_AHEAD_SECONDS: integer(300, 0, 86_400, 'Events further ahead of the clock are rejected (too_new)'),
  RATE_FREE: rate('100:1000', 'Events a second and burst of a tenant of tier free'),
  RATE_STANDARD: rate('5000:50000', 'The same for tier standard'),
  RATE_ENTERPRISE: rate('none', 'The same for tier enterprise'),
  RATE_DISCOVERED: rate('none', 'The same for tenants that only events have made known'),
  SPREAD_TENANTS: {
    initial: '',
    about:
      'Tenants too big for one partition: "customer=partitions,…"; never change a number while its events are inside the window',
    parse: (value: string) => parseSpread(value),
  } satisfies Setting<ReadonlyMap<string, number>>,
  DATABASE_SILENCE_MS: integer(
    70_000,
    1_000,
    3_600_000,
    'A connection to the database that answers with no byte for so long is given up; no statement may take longer',
  ),
  // Kafka
  KAFKA_BROKERS: {
    initial: undefined,
    about: 'host:port,… of an Apache Kafka (3.7 or later) to use instead of the embedded log',
    parse: parseBrokers,
  } satisfies Optional<readonly string[]>,
  KAFKA_TOPIC: text('tidemark.events', 'Topic of the events; made with LOG_PARTITIONS partitions where it is missing'),
  KAFKA_GROUP: text('tidemark', 'Consumer group of the processors'),
  KAFKA_SECURITY_PROTOCOL: choice(
    'PLAINTEXT',
    ['PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'],
    'How brokers are spoken to',
  ),
  KAFKA_SASL_MECHANISM: choice('PLAIN', ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'], 'How we authenticate with SASL'),
  KAFKA_SASL_USERNAME: optional('User for SASL', String),
  KAFKA_SASL_PASSWORD: secret('Password for SASL'),
  KAFKA_SSL_CA: optional('PEM file of the authorities that vouch for the brokers; unset: those of the system', String),
  KAFKA_SSL_CERT: optional('PEM file of our own certificate, where brokers ask for one', String),
  KAFKA_SSL_KEY: optional('PEM file of its key', String),
  KAFKA_COMPRESSION: choice('lz4', ['none', 'gzip', 'lz4', 'zstd'], 'Compression of the record batches that we write'),
  KAFKA_LINGER_MS: integer(5, 0, 10_000, 'How long records wait for others to share a batch, ms'),
  KAFKA_BATCH_BYTES: integer(900_000, 1_024, 1 << 30, 'Most bytes of a record batch before compression'),
  KAFKA_IN_FLIGHT: integer(5, 1, 1_000, 'Produce requests in flight to one broker'),
  KAFKA_BUFFER_MB: integer(64, 1, 1e6, 'Bytes waiting to be acknowledged beyond which ingest answers 503'),
  KAFKA_PREFETCH_MB: integer(32, 1, 1e6, 'Bytes fetched ahead, all partitions of a process together'),
  KAFKA_REQUEST_TIMEOUT_MS: integer(5_000, 100, 600_000, 'A request unanswered for so long means a dead connection'),
  KAFKA_SESSION_TIMEOUT_MS: integer(
    10_000,
    500,
    1_800_000,
    'A processor not heard of for so long loses its partitions',
  ),
  KAFKA_REBALANCE_TIMEOUT_MS: integer(30_000, 500, 1_800_000, 'How long the group waits for its members to join again'),
  KAFKA_REPLICATION: {
    ...integer(3, 1, 100, "Replicas of the topic when we make it; unset: the broker's default"),
    initial: undefined,
  },
  KAFKA_MIN_INSYNC_REPLICAS: {
    ...integer(2, 1, 100, "Replicas that acks=all waits for, when we make the topic; unset: the broker's default"),
    initial: undefined,
  },
  KAFKA_RETENTION_HOURS: integer(168, 1, 1e6, 'How long a topic that we make keeps records'),
  KAFKA_SCHEMA_REGISTRY_URL: optional("Schema registry: records are then in Confluent's wire format", parseHttpUrl),
  KAFKA_SCHEMA_REGISTRY_USERNAME: optional('User for the schema registry', String),
  KAFKA_SCHEMA_REGISTRY_PASSWORD: secret('Password for the schema registry'),

  // TimescaleDB and storage
  CHUNK_HOURS: {
    ...integer(24, 1, 24, 'Hours of events and minute rollups in one chunk of the database; a divisor of 24'),
    parse: (value: string) => {
      const hours = Number(value);
      if (!/^\d+$/.test(value) || !(hours >= 1 && hours <= 24) || 24 % hours !== 0)
        throw new Error('must be 1, 2, 3, 4, 6, 8, 12 or 24');
      return hours;
    },
  },
  COMPRESS_AFTER_DAYS: integer(
    7,
    0,
    3_650,
    'Days after its end when TimescaleDB compresses a chunk (late events still go in); 0: never',
  ),

  LAG_LIMIT: integer(5_000_000, 1_000, 1e12, 'Records waiting on the log beyond which ingest answers 503'),
  APPEND_DEADLINE_MS: integer(10_000, 100, 600_000, 'Longest wait for the log before ingest answers 503'),
  PROCESSOR_BATCH_EVENTS: integer(20_000, 1, 1_000_000, 'Most events in one transaction'),
  PROCESSOR_BATCH_BYTES: integer(16 << 20, 1 << 16, 1 << 30, 'Most bytes of events in one transaction'),
  PROCESSOR_LINGER_MS: integer(
    200,
    0,
    60_000,
    'Pause between two batches of a partition that keeps up, so that a batch is worth a commit',
  ),
  // Meters
  METER_GROUPS_MAX: integer(
    10_000,
    1,
    1e7,
    'Groups of one meter and tenant; further ones are counted together as "other"',
  ),
  METER_REFRESH_MS: integer(1_000, 10, 600_000, 'How soon processors see a new or changed meter'),

  ROLLUP_CACHE_ROWS: integer(100_000, 1_000, 1e8, 'Rollup rows kept in memory'),
  ROLLUP_REFOLD_SECONDS: integer(
    60,
    0,
    86_400,
    'Least pause between making coarse rollups again that late events have changed; reading is exact meanwhile',
  ),
  DEDUPE_MEMORY_MB: integer(
    512,
    1,
    1e6,
    'Memory for the indexes of claimed keys, about 4 bytes each; beyond it claims ask the database',
  ),
  DEDUPE_SEAL_KEYS: integer(
    200_000,
    16,
    10_000_000,
    'Recent keys of a partition kept exactly in memory before they are sealed into a run',
  ),

  // Tenants, migrations, pools
  TENANT_MIGRATIONS: optional(
    "Folder of migrations of tenants' schemas beside the built-in ones: NNNN_name.up.sql and .down.sql, or Prisma's",
    (value) => value,
  ),
  MIGRATION_PARALLEL: integer(10, 1, 100, 'Tenants that are migrated at the same time'),
  MIGRATION_FIRST_WAVE: integer(5, 1, 1_000, 'Tenants in the first wave; then come 25 %, 50 % and all'),
  MIGRATION_LOCK_MS: integer(3_000, 1, 600_000, 'Longest wait of a migration for a lock, tried three times'),
  MIGRATION_STATEMENT_MS: integer(300_000, 1, 86_400_000, 'Longest run of one migration file on one tenant'),
  MIGRATION_BREAKER: integer(3, 1, 1_000, 'Failures in a row that end a run which goes on after failures'),
  MIGRATION_KEEP_HOURS: integer(24, 0, 8_760, 'Hours for which the old schema of a blue/green change is kept'),
  SCHEMA_STORAGE_ALERT_GB: integer(50, 1, 1_000_000, "Size of a tenant's schema that is alerted"),
  SCHEMA_SLOW_SECONDS: integer(10, 1, 86_400, "Statements of a tenant's role that run longer count as slow"),
  TENANT_INACTIVE_DAYS: integer(90, 1, 3_650, 'Days without an event after which archival is proposed'),
  TENANT_CONNECTIONS: integer(
    500,
    2,
    100_000,
    'Connections of the database that Tidemark may count on; never more than the server has',
  ),
  TENANT_CONNECTIONS_ADMIN: integer(20, 0, 10_000, 'Of them kept for administration; the rest is for pools of tenants'),
  TENANT_POOL_HOT: integer(5, 1, 1_000, 'Most connections of a tenant that is used much'),
  TENANT_POOL_WARM: integer(2, 1, 1_000, 'The same for one that is used now and then, and for new ones'),
  TENANT_POOL_COLD: integer(1, 1, 1_000, 'The same for all others'),
  TENANT_POOL_WAIT_MS: integer(5_000, 1, 600_000, 'Longest wait for a connection (pool_timeout)'),
  TENANT_POOL_QUEUE: integer(1_000, 1, 1_000_000, 'Most requests of one tenant that wait (pool_queue_full)'),
  TENANT_POOL_IDLE_MS: integer(60_000, 100, 86_400_000, 'A connection unused for so long is closed'),
  TENANT_POOL_ALERT_PERCENT: integer(80, 1, 100, 'Share of the connections in use from which it is said'),
  TENANT_REPLICA_URL: {
    ...secret('Read replica of the database, for reads of tenants that are used much'),
    parse: parseDatabaseUrl,
  },
  TIDEMARK_SECRET_KEY: secret(
    'Encrypts stored secrets (AES-256-GCM); made and kept in the data folder where unset. Every process needs the same',
    32,
  ),
  DATABASE_TLS: choice(
    'required',
    ['required', 'optional'],
    'TLS 1.3 to a DATABASE_URL that is not local; `optional` leaves it to the URL',
  ),
  TENANT_DOMAIN: text('', "Domain of tenants' subdomains, as example.com; empty: none is shown"),
  TENANT_DELETE_DAYS: integer(30, 0, 3650, 'Days between the deletion of a tenant and its purge'),
  PROVISIONING_AT_ONCE: integer(4, 1, 64, 'Tenants that this process provisions at the same time; more wait'),
  PROVISIONING_WAIT_MS: integer(
    5_000,
    0,
    60_000,
    'How long POST /api/v1/tenants waits for the end (201) before it answers 202',
  ),
  SMTP_URL: {
    ...secret('smtp:// or smtps:// server for mail; .eml files in the data folder where unset'),
    parse: parseSmtpUrl,
  },
  MAIL_FROM: text('Tidemark <tidemark@localhost>', 'Sender of mail'),
  BETTERSTACK_TOKEN: secret('Token of Better Stack: each tenant gets a heartbeat there'),
  BETTERSTACK_URL: { ...text('https://uptime.betterstack.com', 'Address of its API'), parse: parseHttpUrl },

  // Billing
  BILLING_GRACE_HOURS: integer(24, 0, 8_760, 'Hours that a billing period stays open after its end, for late events'),
  BILLING_ADJUST_DAYS: integer(
    45,
    0,
    800,
    'Statements whose periods ended within so many days are brought up to date by the next one',
  ),

  // Archive and jobs
  S3_BUCKET: optional('Bucket of archives and backups; unset: the folder objects/ in TIDEMARK_DATA', parseBucket),
  S3_ENDPOINT: optional(
    'Any S3-compatible service instead of AWS, as https://host:port; credentials: the standard AWS variables',
    parseHttpUrl,
  ),
  S3_PREFIX: {
    initial: '',
    about: 'Put before every key in the bucket, as team/tidemark',
    parse: (value: string) => parsePrefix(value),
  } satisfies Setting<string>,
  AWS_REGION: optional('Region of the bucket', (value) => value),
  S3_ENCRYPTION: choice('none', ['none', 'AES256', 'aws:kms'], 'Server-side encryption that every object asks for'),
  S3_KMS_KEY: optional('Key for S3_ENCRYPTION=aws:kms', (value) => value),
  ARCHIVE_HOT_DAYS: integer(90, 1, 3_650, 'Days (UTC) that raw events and minute rollups stay in the database'),
  ARCHIVE_PART_ROWS: integer(250_000, 1_000, 10_000_000, 'Most events in one file of the archive'),
  ARCHIVE_MEMORY_MB: integer(384, 64, 65_536, 'Memory for writing the archive, and as much again for reading it'),
  ARCHIVE_THREADS: integer(1, 1, 64, 'Threads that write, and threads that read the archive'),
  ARCHIVE_DUTY_PERCENT: integer(70, 1, 100, 'Share of the time that the archiver works; it rests for the other part'),
  ARCHIVE_ZSTD_LEVEL: integer(3, 1, 22, 'Compression level of the archive'),
  ARCHIVE_CACHE_MB: integer(1_024, 16, 1e7, 'Files of the archive kept on disk for reading, where the store is S3'),
  ARCHIVE_IA_DAYS: integer(30, 0, 36_500, 'Age in days at which files move to STANDARD_IA; 0: never, else ≥ 30'),
  ARCHIVE_GLACIER_DAYS: integer(365, 0, 36_500, 'Age in days at which files move to GLACIER; 0: never'),
  ARCHIVE_EXPIRE_DAYS: integer(2_557, 0, 36_500, 'Age in days at which the archive is deleted; 0: never'),
  JOBS_AT_ONCE: integer(4, 1, 100, 'Most job runs at once in this process'),
  JOB_HISTORY_DAYS: integer(90, 1, 3650, 'Days for which ended runs stay in the history'),
} as const satisfies Record<string, Setting<unknown>>;

type Table = typeof TABLE;

/** All settings, checked; undefined where unset and without a default. */
export type Settings = {
  readonly [K in keyof Table]: Table[K]['initial'] extends undefined
    ? ReturnType<Table[K]['parse']> | undefined
    : ReturnType<Table[K]['parse']>;
};

/**
 * Reads and checks every setting; an empty variable counts as unset.
 * @throws TidemarkError `invalid_setting` naming every wrong variable at once
 */
export function readSettings(env: Readonly<Record<string, string | undefined>>): Settings {
  const values: Record<string, unknown> = {};
  const wrong: string[] = [];
  for (const [name, setting] of Object.entries<Setting<unknown>>(TABLE)) {
    const given = env[name] || setting.initial;
    try {
      values[name] = given === undefined ? undefined : setting.parse(given);
    } catch (error) {
      wrong.push(`${name} ${error instanceof Error ? error.message : error}`);
    }
  }
  if (wrong.length > 0) throw new TidemarkError('invalid_setting', wrong.join('; '));
  return values as Settings;
}

/** The settings page of the manual, in Markdown. */
export function settingsPage(): string {
  const rows = Object.entries<Setting<unknown>>(TABLE).map(
    ([name, { initial, about, secret: hidden }]) =>
      `| \`${name}\` | ${initial ? `\`${initial}\`` : '–'} | ${about}${hidden ? ' (secret)' : ''} |`,
  );
  return `# Settings

Environment variables, checked at start: a wrong one is named and nothing starts. An empty one counts as unset.
Made by \`npm run docs\` from \`schemas/settings.ts\`.

| variable | default | what |
|---|---|---|
${rows.join('\n')}
`;
}

/** Events a second by tier. */
export function ratesOf(settings: Settings): Record<Tier, Rate | null> {
  return {
    free: settings.RATE_FREE,
    standard: settings.RATE_STANDARD,
    enterprise: settings.RATE_ENTERPRISE,
    discovered: settings.RATE_DISCOVERED,
  };
}
