import type { Readable } from 'node:stream';

/** An object at rest. */
export interface StoredObject {
  key: string;
  bytes: number;
  /** changes with the content; opaque */
  etag: string;
  /** STANDARD, STANDARD_IA, GLACIER, …; files are STANDARD */
  storageClass: string;
  modifiedAt: Date;
  /** of a cold class: a copy is on its way, or there (`head` says it, `list` does not) */
  restore?: 'ongoing' | 'done';
}

export interface PutOptions {
  /** refuse when the key exists (S3: If-None-Match: *) */
  ifAbsent?: boolean;
  /** refuse unless the object has this etag (S3: If-Match) */
  ifMatch?: string;
  /** SHA-256 of the content, hex: refused when what arrived differs */
  sha256?: string;
  contentType?: string;
  /** what lifecycle rules and legal holds go by; letters, digits, `_-` */
  tags?: Readonly<Record<string, string>>;
}

/** What happens to objects with a tag as they age; days since they were written. */
export interface LifecycleRule {
  id: string;
  prefix: string;
  /** objects that have all of these */
  tags: Readonly<Record<string, string>>;
  /** in ascending days */
  transitions: readonly { days: number; storageClass: string }[];
  /** undefined: kept for ever */
  expireDays?: number;
}

/**
 * The object store's port: S3 or a folder with the same semantics. A put is atomic: readers see the old object or the whole new one.
 * Keys are ours (letters, digits, `/=-_.`), never input.
 */
export interface ObjectStore {
  readonly name: 's3' | 'files';
  /** @throws {PreconditionFailed} | {ChecksumMismatch} | {ObjectStoreUnavailable} */
  put(key: string, body: Uint8Array | Readable, options?: PutOptions): Promise<StoredObject>;
  /** @param range bytes [from, to) @throws {ObjectMissing} | {ObjectFrozen} | {ObjectStoreUnavailable} */
  get(key: string, range?: { from: number; to: number }): Promise<Readable>;
  /** Where the object is on this machine's disk, for tools that read files; undefined: nowhere, `get` it. */
  localPath(key: string): string | undefined;
  head(key: string): Promise<StoredObject | undefined>;
  /** In the order of keys. */
  list(prefix: string): AsyncIterable<StoredObject>;
  /** Idempotent. */
  delete(key: string): Promise<void>;
  /**
   * Asks for a readable copy of an object in a cold class; nothing happens where it is readable or on its way.
   * @param days how long the copy stays @throws {ObjectMissing} | {ObjectStoreUnavailable}
   */
  restore(key: string, options: { days: number; speed: RestoreSpeed }): Promise<void>;
  /** Replaces an object's tags. @throws {ObjectMissing} | {ObjectStoreUnavailable} */
  tag(key: string, tags: Readonly<Record<string, string>>): Promise<void>;
  tags(key: string): Promise<Record<string, string>>;
  /** Sets our rules by their ids; rules of others stay. */
  setLifecycle(rules: readonly LifecycleRule[]): Promise<void>;
  lifecycle(): Promise<LifecycleRule[]>;
  /**
   * Deletes what the rules say has expired, where the store does not do it by itself (S3 does: nothing then).
   * @param now Unix ms @returns keys deleted
   */
  expire(now: number): Promise<string[]>;
  /** Whether the store answers and lets us in; @throws {ObjectStoreUnavailable} */
  check(): Promise<void>;
  close(): void;
}

export const RESTORE_SPEEDS = ['Expedited', 'Standard', 'Bulk'] as const;
/** Glacier's retrieval tiers: minutes, hours, half a day; the price falls in this order. */
export type RestoreSpeed = (typeof RESTORE_SPEEDS)[number];

/** The condition of a put does not hold: another writer was first. */
export class PreconditionFailed extends Error {
  override name = 'PreconditionFailed';
}

/** What arrived is not what was announced by `sha256`: nothing was stored. */
export class ChecksumMismatch extends Error {
  override name = 'ChecksumMismatch';
}

export class ObjectMissing extends Error {
  override name = 'ObjectMissing';
}

/** In a cold class (Glacier): restore it first. */
export class ObjectFrozen extends Error {
  override name = 'ObjectFrozen';
}

/** The store can't be reached, or has no room: retry later. */
export class ObjectStoreUnavailable extends Error {
  override name = 'ObjectStoreUnavailable';
}

/** Keys are made by us: anything else is a programmer's error. @throws RangeError */
export function checkKey(key: string): void {
  if (!/^[\w=.-]+(\/[\w=.-]+)*$/.test(key) || key.split('/').some((part) => part === '.' || part === '..'))
    throw new RangeError(`not an object key: ${key}`);
}
