import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetBucketLifecycleConfigurationCommand,
  GetObjectCommand,
  GetObjectTaggingCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutBucketLifecycleConfigurationCommand,
  PutObjectCommand,
  PutObjectTaggingCommand,
  RestoreObjectCommand,
  S3Client,
  S3ServiceException,
  type StorageClass,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import {
  ChecksumMismatch,
  checkKey,
  type LifecycleRule,
  ObjectFrozen,
  ObjectMissing,
  type ObjectStore,
  ObjectStoreUnavailable,
  PreconditionFailed,
  type PutOptions,
  type RestoreSpeed,
  type StoredObject,
} from '../port.ts';
import { fromS3Rule, toS3Rule } from './lifecycle.ts';

export interface S3Settings {
  bucket: string;
  /** any S3-compatible service; undefined: AWS */
  endpoint?: string | undefined;
  region?: string | undefined;
  /** put before every key, without a slash at its end; '' for none */
  prefix?: string;
  encryption?: 'none' | 'AES256' | 'aws:kms';
  kmsKey?: string | undefined;
  /** bytes of one part of a multipart upload, at least 5 MB; memory of an upload is about this */
  partBytes?: number;
  /** milliseconds that one request may take */
  requestTimeoutMs?: number;
}

/** S3's least size of a part that is not the last. */
const LEAST_PART = 5 << 20;

/** Opens a bucket; credentials come from the standard AWS variables, files or roles. */
export function openS3Store(settings: S3Settings): ObjectStore {
  const client = new S3Client({
    ...(settings.endpoint === undefined ? {} : { endpoint: settings.endpoint, forcePathStyle: true }),
    ...(settings.region === undefined ? {} : { region: settings.region }),
    maxAttempts: 4,
    requestHandler: { connectionTimeout: 5_000, requestTimeout: settings.requestTimeoutMs ?? 60_000 },
    // Some compatible services know no other checksums than those that we ask for.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
  return new S3Store(client, settings);
}

class S3Store implements ObjectStore {
  readonly name = 's3';
  readonly #client: S3Client;
  readonly #settings: S3Settings;
  readonly #prefix: string;

  constructor(client: S3Client, settings: S3Settings) {
    this.#client = client;
    this.#settings = settings;
    this.#prefix = settings.prefix ? `${settings.prefix}/` : '';
  }

  /** A body up to one part is one request; a longer one goes up in parts, which become an object only when all are there. */
  async put(key: string, body: Uint8Array | Readable, options: PutOptions = {}): Promise<StoredObject> {
    const address = this.#address(key);
    try {
      const parts = inParts(body instanceof Uint8Array ? [body] : body, this.#partBytes());
      const first = await parts.next();
      const whole = first.done ? new Uint8Array(0) : first.value;
      const second = await parts.next();
      if (second.done) await this.#putWhole(address, whole, options);
      else await this.#putParts(address, [whole, second.value], parts, options);
      const stored = await this.head(key);
      if (stored === undefined) throw new ObjectMissing(`${key} was deleted meanwhile`);
      return stored;
    } catch (error) {
      throw describe(error, key);
    }
  }

  async #putWhole(address: Address, body: Uint8Array, options: PutOptions): Promise<void> {
    const digest = createHash('sha256').update(body).digest();
    requireChecksum(options, digest.toString('hex'));
    await this.#client.send(
      new PutObjectCommand({
        ...address,
        ...this.#attributes(options),
        ...conditions(options),
        Body: body,
        ContentLength: body.length,
        ChecksumSHA256: digest.toString('base64'),
      }),
    );
  }

  async #putParts(
    address: Address,
    begun: readonly Uint8Array[],
    rest: AsyncIterable<Uint8Array>,
    options: PutOptions,
  ): Promise<void> {
    const { UploadId } = await this.#client.send(
      new CreateMultipartUploadCommand({ ...address, ...this.#attributes(options), ChecksumAlgorithm: 'SHA256' }),
    );
    const upload = { ...address, UploadId };
    try {
      const whole = createHash('sha256');
      const Parts: CompletedPart[] = [];
      const send = async (body: Uint8Array) => {
        whole.update(body);
        const ChecksumSHA256 = createHash('sha256').update(body).digest('base64');
        const PartNumber = Parts.length + 1;
        const part = { ...upload, PartNumber, Body: body, ContentLength: body.length, ChecksumSHA256 };
        const { ETag } = await this.#client.send(new UploadPartCommand(part));
        Parts.push({ PartNumber, ETag, ChecksumSHA256 });
      };
      for (const body of begun) await send(body);
      for await (const body of rest) await send(body);
      requireChecksum(options, whole.digest('hex'));
      await this.#requireVersion(address, options);
      await this.#client.send(
        new CompleteMultipartUploadCommand({ ...upload, ...conditions(options), MultipartUpload: { Parts } }),
      );
    } catch (error) {
      // What is left of it costs money until then; a lifecycle rule removes what a crash leaves.
      await this.#client.send(new AbortMultipartUploadCommand(upload)).catch(() => undefined);
      throw error;
    }
  }

  /** Not every compatible service holds If-Match when parts are put together. */
  async #requireVersion(address: Address, options: PutOptions): Promise<void> {
    if (options.ifMatch === undefined) return;
    const { ETag } = await this.#client.send(new HeadObjectCommand(address));
    if (ETag !== options.ifMatch) throw new PreconditionFailed(`${address.Key} is no longer the version that was read`);
  }

  #partBytes(): number {
    return Math.max(LEAST_PART, this.#settings.partBytes ?? 8 << 20);
  }

  #attributes({ contentType, tags }: PutOptions) {
    const { encryption = 'none', kmsKey } = this.#settings;
    return {
      ...(contentType === undefined ? {} : { ContentType: contentType }),
      ...(tags === undefined ? {} : { Tagging: new URLSearchParams(tags).toString() }),
      ...(encryption === 'none' ? {} : { ServerSideEncryption: encryption }),
      ...(encryption === 'aws:kms' && kmsKey !== undefined ? { SSEKMSKeyId: kmsKey } : {}),
    };
  }

  async get(key: string, range?: { from: number; to: number }): Promise<Readable> {
    if (range !== undefined && range.to <= range.from) return Readable.from([]);
    const Range = range === undefined ? undefined : `bytes=${range.from}-${range.to - 1}`;
    try {
      const { Body } = await this.#client.send(new GetObjectCommand({ ...this.#address(key), Range }));
      if (!(Body instanceof Readable)) throw new ObjectStoreUnavailable(`${key} has no body`);
      return Body;
    } catch (error) {
      throw describe(error, key);
    }
  }

  localPath(): undefined {
    return undefined;
  }

  async head(key: string): Promise<StoredObject | undefined> {
    try {
      const found = await this.#client.send(new HeadObjectCommand(this.#address(key)));
      return {
        key,
        bytes: found.ContentLength ?? 0,
        etag: found.ETag ?? '',
        storageClass: found.StorageClass ?? 'STANDARD',
        modifiedAt: found.LastModified ?? new Date(0),
        ...(found.Restore === undefined
          ? {}
          : { restore: found.Restore.includes('ongoing-request="true"') ? 'ongoing' : 'done' }),
      };
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw describe(error, key);
    }
  }

  async *list(prefix: string): AsyncIterable<StoredObject> {
    let token: string | undefined;
    do {
      const Prefix = this.#prefix + prefix;
      const page = await this.#client
        .send(new ListObjectsV2Command({ Bucket: this.#settings.bucket, Prefix, ContinuationToken: token }))
        .catch((error) => {
          throw describe(error, prefix);
        });
      for (const { Key, Size, ETag, StorageClass, LastModified } of page.Contents ?? [])
        yield {
          key: (Key ?? '').slice(this.#prefix.length),
          bytes: Size ?? 0,
          etag: ETag ?? '',
          storageClass: StorageClass ?? 'STANDARD',
          modifiedAt: LastModified ?? new Date(0),
        };
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  async delete(key: string): Promise<void> {
    await this.#send(key, () => this.#client.send(new DeleteObjectCommand(this.#address(key))));
  }

  async restore(key: string, { days, speed }: { days: number; speed: RestoreSpeed }): Promise<void> {
    const found = await this.head(key);
    if (found === undefined) throw new ObjectMissing(`there is no ${key}`);
    if (!isFrozen(found) || found.restore === 'ongoing') return;
    const RestoreRequest = { Days: days, GlacierJobParameters: { Tier: speed } };
    try {
      await this.#client.send(new RestoreObjectCommand({ ...this.#address(key), RestoreRequest }));
    } catch (error) {
      if (!(error instanceof Error && error.name === 'RestoreAlreadyInProgress')) throw describe(error, key);
    }
  }

  async tag(key: string, tags: Readonly<Record<string, string>>): Promise<void> {
    const TagSet = Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
    await this.#send(key, () =>
      this.#client.send(new PutObjectTaggingCommand({ ...this.#address(key), Tagging: { TagSet } })),
    );
  }

  async tags(key: string): Promise<Record<string, string>> {
    const { TagSet = [] } = await this.#send(key, () =>
      this.#client.send(new GetObjectTaggingCommand(this.#address(key))),
    );
    return Object.fromEntries(TagSet.map(({ Key = '', Value = '' }) => [Key, Value]));
  }

  async setLifecycle(rules: readonly LifecycleRule[]): Promise<void> {
    const ours = new Set(rules.map((rule) => rule.id));
    const kept = (await this.#bucketRules()).filter((rule) => !ours.has(rule.ID ?? ''));
    const Rules = [...kept, ...rules.map((rule) => toS3Rule(rule, this.#prefix))];
    await this.#send('lifecycle', () =>
      this.#client.send(
        new PutBucketLifecycleConfigurationCommand({
          Bucket: this.#settings.bucket,
          LifecycleConfiguration: { Rules },
        }),
      ),
    );
  }

  async lifecycle(): Promise<LifecycleRule[]> {
    return (await this.#bucketRules()).flatMap((rule) => fromS3Rule(rule, this.#prefix));
  }

  async #bucketRules() {
    try {
      const found = await this.#client.send(
        new GetBucketLifecycleConfigurationCommand({ Bucket: this.#settings.bucket }),
      );
      return found.Rules ?? [];
    } catch (error) {
      if (error instanceof Error && error.name === 'NoSuchLifecycleConfiguration') return [];
      throw describe(error, 'lifecycle');
    }
  }

  async expire(): Promise<string[]> {
    return [];
  }

  async check(): Promise<void> {
    const Bucket = this.#settings.bucket;
    await this.#client.send(new HeadBucketCommand({ Bucket })).catch((error) => {
      throw new ObjectStoreUnavailable(`bucket ${Bucket}: ${error.name}`, { cause: error });
    });
  }

  close(): void {
    this.#client.destroy();
  }

  #address(key: string): Address {
    checkKey(key);
    return { Bucket: this.#settings.bucket, Key: this.#prefix + key };
  }

  async #send<T>(key: string, send: () => Promise<T>): Promise<T> {
    try {
      return await send();
    } catch (error) {
      throw describe(error, key);
    }
  }
}

interface Address {
  Bucket: string;
  Key: string;
}

const COLD: ReadonlySet<string> = new Set<StorageClass>(['GLACIER', 'DEEP_ARCHIVE']);
/** Whether an object must be restored before it can be read. */
export const isFrozen = (object: StoredObject): boolean => COLD.has(object.storageClass) && object.restore !== 'done';

const conditions = ({ ifAbsent, ifMatch }: PutOptions) => ({
  ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
  ...(ifMatch === undefined ? {} : { IfMatch: ifMatch }),
});

/** @throws {ChecksumMismatch} */
function requireChecksum({ sha256 }: PutOptions, got: string): void {
  if (sha256 !== undefined && sha256 !== got) throw new ChecksumMismatch(`announced ${sha256}, arrived ${got}`);
}

/** Cuts a stream into buffers of `bytes`; the last may be shorter. */
async function* inParts(
  stream: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  bytes: number,
): AsyncGenerator<Uint8Array> {
  let held: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    held.push(chunk);
    size += chunk.length;
    while (size >= bytes) {
      const all = Buffer.concat(held, size);
      yield all.subarray(0, bytes);
      held = [all.subarray(bytes)];
      size -= bytes;
    }
  }
  if (size > 0) yield Buffer.concat(held, size);
}

const statusOf = (error: unknown): number =>
  error instanceof S3ServiceException ? (error.$metadata.httpStatusCode ?? 0) : 0;

/** S3's errors in the port's terms; what is neither ours nor S3's stays as it is. */
function describe(error: unknown, key: string): unknown {
  if (error instanceof S3ServiceException) {
    const status = statusOf(error);
    if (error.name === 'InvalidObjectState') return new ObjectFrozen(`${key} is in a cold class`, { cause: error });
    if (status === 412 || error.name === 'ConditionalRequestConflict')
      return new PreconditionFailed(`${key}: another writer was first`, { cause: error });
    if (error.name === 'NoSuchBucket') return new ObjectStoreUnavailable('there is no such bucket', { cause: error });
    if (status === 404) return new ObjectMissing(`there is no ${key}`, { cause: error });
    return new ObjectStoreUnavailable(`${key}: ${error.name} (${status})`, { cause: error });
  }
  if (error instanceof Error && (isNetworkError(error) || error.name === 'TimeoutError'))
    return new ObjectStoreUnavailable(`${key}: ${error.message}`, { cause: error });
  return error;
}

const isNetworkError = (error: Error): boolean =>
  ('code' in error && /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_|UND_ERR)/.test(String(error.code))) ||
  ['CredentialsProviderError', 'AbortError', 'IncompleteBody'].includes(error.name) ||
  /socket hang up|aborted/.test(error.message);
