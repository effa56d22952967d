import type { IncomingMessage } from 'node:http';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type {} from '@fastify/swagger';
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import { ERRORS, LIMITS, type Rejection, type Tenant, type TenantDirectory, TidemarkError } from '../schemas/index.ts';
import { type EventLog, LogUnavailable } from '../sinks/index.ts';
import { RateLimits } from './rate-limit.ts';
import { ScanMemory, type ScannedBody, scanBody } from './scan-body.ts';
import type { BodyForm, IngestSettings, ScanContext } from './scan-context.ts';

/** Where corrections are that went to the partition of the event that they replace. */
export interface CorrectionPlaces {
  /**
   * Partitions of corrections among these claim keys; waits for what is on the log and not committed yet.
   * @throws TidemarkError `overloaded` when that takes too long
   */
  find(claimKeys: readonly string[]): Promise<ReadonlyMap<string, number>>;
}

export interface IngestOptions {
  log: EventLog;
  directory: TenantDirectory;
  settings: IngestSettings;
  /** records on the log that no commit has covered yet */
  lag(): number;
  corrections: CorrectionPlaces;
  /** Unix ms */
  now(): number;
  metrics: IngestMetrics;
}

/** Counters since start. */
export interface IngestMetrics {
  requests: number;
  accepted: number;
  rejected: number;
}

const unzip = promisify(gunzip);
/** A body that is too large is read to its end up to here. */
const MOST_DRAINED_BYTES = 64 * 1024 * 1024;
const RETRY_AFTER = { 'retry-after': '1' };

/** POST /api/v1/events (CloudEvents) and POST /api/v1/logs (JSON log lines). */
export const ingestRoutes: FastifyPluginAsync<IngestOptions> = async (app, options) => {
  const limits = new RateLimits(options.settings.rates);
  const memory = new ScanMemory();
  const join = createJoin();
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request: FastifyRequest, body: IncomingMessage) => readBody(body));

  app.post(
    '/api/v1/events',
    { schema: { tags: ['ingest'], summary: 'Send CloudEvents 1.0, one or a batch' } },
    (request, reply) => receive(request, reply, formOfEvents(request)),
  );
  app.post(
    '/api/v1/logs',
    {
      schema: { tags: ['ingest'], summary: 'Send JSON log lines: one, an array, or NDJSON' },
    },
    (request, reply) => receive(request, reply, formOfLogs(request)),
  );

  async function receive(request: FastifyRequest, reply: FastifyReply, form: BodyForm): Promise<FastifyReply> {
    const principal = await request.authorize('ingest');
    const status = principal.tenant?.status;
    if (status === 'suspended' || status === 'archived')
      throw new TidemarkError(`tenant_${status}`, `the tenant is ${status}: nothing was accepted`);
    const backfill = request.headers['tidemark-backfill'] === 'true';
    if (backfill && !principal.scopes.has('admin'))
      throw new TidemarkError('forbidden', 'Tidemark-Backfill needs the scope admin');
    if (options.lag() > options.settings.lagLimit)
      throw new TidemarkError('overloaded', 'processing lags behind: try again later', {
        headers: { 'retry-after': '5' },
      });
    const chunks = await unpack(request);
    options.metrics.requests++;
    const scanned = await scanWithTenants(chunks, { form, principal, backfill });
    const strict = /(?:^|[\s,;])handling=strict(?:$|[\s,;])/i.test(String(request.headers.prefer ?? ''));
    const { accepted, rejected } = scanned;
    if (rejected.length > 0 && (strict || accepted === 0)) {
      giveBack(scanned);
      memory.writers.giveBack(scanned.writers);
      options.metrics.rejected += rejected.length;
      throw refusal(rejected, strict, accepted, principal.tenant);
    }
    try {
      await append(scanned);
    } catch (error) {
      giveBack(scanned);
      throw error;
    }
    memory.writers.giveBack(scanned.writers);
    options.metrics.accepted += accepted;
    options.metrics.rejected += rejected.length;
    if (rejected.length === 0) return reply.code(204).send();
    return reply.code(200).send({ accepted, rejected });
  }

  /** Scans; where the body names tenants or corrections that this process does not know, asks for them and scans again. */
  async function scanWithTenants(
    chunks: readonly Buffer[],
    given: Pick<ScanContext, 'form' | 'principal' | 'backfill'>,
  ): Promise<ScannedBody> {
    const asked = new Map<string, Tenant | null>();
    const placed = new Map<string, number | null>();
    const context: ScanContext = {
      ...given,
      settings: options.settings,
      partitions: options.log.partitions,
      limits,
      now: options.now(),
      tenant: (customerId) =>
        asked.get(customerId) ?? options.directory.peek(customerId) ?? (asked.has(customerId) ? null : undefined),
      placed: (claimKey) => placed.get(claimKey),
    };
    for (;;) {
      const scanned = scanBody(join(chunks), context, memory);
      const { unknown, unplaced } = scanned;
      if (unknown.size === 0 && unplaced.size === 0) return scanned;
      giveBack(scanned);
      memory.writers.giveBack(scanned.writers);
      await ask(unknown, asked);
      if (unplaced.size === 0) continue;
      const found = await options.corrections.find([...unplaced]);
      for (const claimKey of unplaced) placed.set(claimKey, found.get(claimKey) ?? null);
    }
  }

  async function ask(names: ReadonlySet<string>, asked: Map<string, Tenant | null>): Promise<void> {
    if (names.size === 0) return;
    const { directory, settings } = options;
    try {
      const found = await (settings.unknownTenants === 'create'
        ? directory.discover([...names])
        : directory.findAll([...names]));
      for (const name of names) asked.set(name, found.get(name) ?? null);
    } catch (error) {
      request503(settings.unknownTenants, error);
      // The processor will make them known: usage is not lost to an absent database.
      for (const name of names) asked.set(name, null);
    }
  }

  function giveBack(scanned: ScannedBody): void {
    for (const [tenant, count] of scanned.taken) limits.giveBack(tenant, count);
  }

  async function append(scanned: ScannedBody): Promise<void> {
    if (scanned.batches.length === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new LogUnavailable('the log did not answer in time')),
        options.settings.appendDeadlineMs,
      );
    });
    try {
      await Promise.race([options.log.append(scanned.batches), deadline]);
    } catch (error) {
      if (!(error instanceof LogUnavailable)) throw error;
      throw new TidemarkError('log_unavailable', error.message, { headers: RETRY_AFTER, cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  function refusal(rejected: Rejection[], strict: boolean, sound: number, tenant: Tenant | null): TidemarkError {
    if (!rejected.every(({ code }) => code === 'rate_limited')) {
      const detail =
        strict && sound > 0
          ? `handling=strict: ${rejected.length} of ${rejected.length + sound} events are wrong, none was accepted`
          : `${rejected.length} events were rejected`;
      return new TidemarkError('all_rejected', detail, { extensions: { rejected } });
    }
    const headers: Record<string, string> = { ...RETRY_AFTER };
    const rate = tenant === null ? null : limits.rateOf(tenant.tier);
    if (tenant !== null && rate !== null) {
      const { remaining, resetSeconds } = limits.state(tenant.id, rate, options.now());
      // draft-ietf-httpapi-ratelimit-headers
      headers['ratelimit-policy'] = `"tenant";q=${rate.burst};w=${Math.ceil(rate.burst / rate.perSecond)}`;
      headers.ratelimit = `"tenant";r=${remaining};t=${resetSeconds}`;
    }
    return new TidemarkError('rate_limited', ERRORS.rate_limited.hint, { extensions: { rejected }, headers });
  }
};

function request503(unknownTenants: 'create' | 'reject', cause: unknown): void {
  if (unknownTenants === 'reject')
    throw new TidemarkError('database_unavailable', 'the tenant can not be checked now', {
      headers: RETRY_AFTER,
      cause,
    });
}

function mediaType(request: FastifyRequest): string {
  return (
    String(request.headers['content-type'] ?? '')
      .split(';', 1)[0]
      ?.trim()
      .toLowerCase() ?? ''
  );
}

function formOfEvents(request: FastifyRequest): BodyForm {
  const type = mediaType(request);
  if (
    type === 'application/cloudevents+json' ||
    type === 'application/cloudevents-batch+json' ||
    type === 'application/json'
  )
    return 'cloudevents';
  throw new TidemarkError(
    'unsupported_media_type',
    'send application/cloudevents+json, application/cloudevents-batch+json or application/json',
  );
}

function formOfLogs(request: FastifyRequest): BodyForm {
  const type = mediaType(request);
  if (type === 'application/json') return 'log';
  if (type === 'application/x-ndjson' || type === 'application/ndjson' || type === 'application/jsonl') return 'ndjson';
  throw new TidemarkError('unsupported_media_type', 'send application/json or application/x-ndjson');
}

/** Puts the pieces of a body together, in memory that the next call uses again. */
function createJoin(): (chunks: readonly Buffer[]) => Buffer {
  let joined = Buffer.allocUnsafeSlow(1 << 18);
  return (chunks) => {
    const [only] = chunks;
    if (chunks.length === 1 && only !== undefined) return only;
    const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    if (length > joined.length) joined = Buffer.allocUnsafeSlow(Math.min(LIMITS.bodyBytes, length * 2));
    let at = 0;
    for (const chunk of chunks) at += chunk.copy(joined, at);
    return joined.subarray(0, length);
  };
}

/**
 * A whole body as sent, in pieces. One that is too large is read on without being kept, so that its sender sees the answer
 * instead of a broken connection; beyond a patient amount it does break.
 */
function readBody(stream: IncomingMessage): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const tooLarge = () =>
      reject(new TidemarkError('body_too_large', `more than ${LIMITS.bodyBytes / 2 ** 20} MB as sent`));
    stream.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= LIMITS.bodyBytes) chunks.push(chunk);
      else chunks.length = 0;
      if (length > MOST_DRAINED_BYTES) {
        stream.pause();
        tooLarge();
      }
    });
    stream.on('end', () => {
      if (length > LIMITS.bodyBytes) tooLarge();
      else resolve(chunks);
    });
    stream.on('error', reject);
  });
}

async function unpack(request: FastifyRequest): Promise<Buffer[]> {
  const body = Array.isArray(request.body) ? request.body : [];
  const encoding = request.headers['content-encoding']?.trim().toLowerCase();
  if (encoding === undefined || encoding === 'identity' || encoding === '') return body;
  if (encoding !== 'gzip') throw new TidemarkError('unsupported_encoding', 'only gzip is understood');
  try {
    return [await unzip(Buffer.concat(body), { maxOutputLength: LIMITS.unpackedBytes })];
  } catch (error) {
    if (error instanceof RangeError)
      throw new TidemarkError('body_too_large', 'more than 50 MB unpacked', { cause: error });
    throw new TidemarkError('invalid_body', 'the body is no gzip', { cause: error });
  }
}
