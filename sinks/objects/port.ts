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
}

export interface PutOptions {
  /** refuse when the key exists (S3: If-None-Match: *) */
  ifAbsent?: boolean;
  /** refuse unless the object has this etag (S3: If-Match) */
  ifMatch?: string;
  /** SHA-256 of the content, hex: refused when what arrived differs */
  sha256?: string;
  contentType?: string;
}

/**
 * The object store's port: S3 or a folder with the same semantics. A put is atomic: readers see the old object or the whole new one.
 * Keys are ours (letters, digits, `/=-_.`), never input.
 */
export interface ObjectStore {
  readonly name: 's3' | 'files';
  /** @throws {PreconditionFailed} | {ObjectStoreUnavailable} */
  put(key: string, body: Uint8Array | Readable, options?: PutOptions): Promise<StoredObject>;
  /** @param range bytes [from, to) @throws {ObjectMissing} | {ObjectFrozen} | {ObjectStoreUnavailable} */
  get(key: string, range?: { from: number; to: number }): Promise<Readable>;
  head(key: string): Promise<StoredObject | undefined>;
  list(prefix: string): AsyncIterable<StoredObject>;
  /** Idempotent. */
  delete(key: string): Promise<void>;
}

/** The condition of a put does not hold: another writer was first. */
export class PreconditionFailed extends Error {
  override name = 'PreconditionFailed';
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
