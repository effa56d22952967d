import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import {
  ChecksumMismatch,
  checkKey,
  type LifecycleRule,
  ObjectMissing,
  type ObjectStore,
  ObjectStoreUnavailable,
  PreconditionFailed,
  type PutOptions,
  type StoredObject,
} from '../port.ts';

const DAY = 86_400_000;
/** Ours, beside the objects: names that no key of the port has (keys never begin with a dot). */
const SCRATCH = '.writing';
const CLAIMS = '.claims';
const TAGS = '.tags';
const RULES = '.lifecycle.json';

/** Opens a folder as an object store; it is made when missing. */
export async function openFileStore(root: string): Promise<ObjectStore> {
  await mkdir(join(root, SCRATCH), { recursive: true });
  await mkdir(join(root, CLAIMS), { recursive: true });
  return new FileStore(root);
}

/**
 * A put writes aside, syncs, and moves the whole file into place; the directory is synced too, so that it outlives
 * a power cut. Conditions are held by link(2), which fails where the name exists: for `ifAbsent` the name is the
 * object's own; for `ifMatch` it is that of the version replaced, so that of two writers one has it.
 */
class FileStore implements ObjectStore {
  readonly name = 'files';
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  async put(key: string, body: Uint8Array | Readable, options: PutOptions = {}): Promise<StoredObject> {
    const path = this.#pathOf(key);
    const written = join(this.#root, SCRATCH, randomUUID());
    try {
      await writeWhole(written, body, options.sha256);
      await mkdir(dirname(path), { recursive: true });
      if (options.tags !== undefined) await this.#writeTags(key, options.tags);
      if (options.ifAbsent) await link(written, path);
      else if (options.ifMatch !== undefined) await this.#replace(key, path, written, options.ifMatch);
      else await rename(written, path);
      await syncFolder(dirname(path));
      const stored = await this.head(key);
      if (stored === undefined) throw new ObjectMissing(`${key} was deleted meanwhile`);
      return stored;
    } catch (error) {
      throw describe(error, key);
    } finally {
      await rm(written, { force: true });
    }
  }

  /**
   * Whoever links the claim for version `etag` may replace that version; a claim that a crash left behind is finished by
   * the next writer, who then finds that the version has gone.
   */
  async #replace(key: string, path: string, written: string, etag: string): Promise<void> {
    const claim = join(this.#root, CLAIMS, createHash('sha256').update(`${key}\n${etag}`).digest('hex'));
    const isCurrent = async () => (await this.head(key))?.etag === etag;
    if (!(await isCurrent())) throw new PreconditionFailed(`${key} is no longer the version that was read`);
    try {
      await link(written, claim);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
      if (await isCurrent()) await moveCopy(claim, path, join(this.#root, SCRATCH, randomUUID()));
      await rm(claim, { force: true });
      throw new PreconditionFailed(`${key} is being replaced by another writer`);
    }
    if (await isCurrent()) await rename(written, path);
    else {
      await rm(claim, { force: true });
      throw new PreconditionFailed(`${key} is no longer the version that was read`);
    }
    await rm(claim, { force: true });
  }

  async get(key: string, range?: { from: number; to: number }): Promise<Readable> {
    try {
      // Opened before it is returned: an object that is replaced or deleted meanwhile is still read whole.
      const handle = await open(this.#pathOf(key), 'r');
      if (range !== undefined && range.to <= range.from) {
        await handle.close();
        return Readable.from([]);
      }
      const part = range === undefined ? {} : { start: range.from, end: range.to - 1 };
      return createReadStream('', { fd: handle, highWaterMark: 1 << 18, ...part });
    } catch (error) {
      throw describe(error, key);
    }
  }

  localPath(key: string): string {
    return this.#pathOf(key);
  }

  async head(key: string): Promise<StoredObject | undefined> {
    try {
      const found = await stat(this.#pathOf(key), { bigint: true });
      if (!found.isFile()) return undefined;
      return {
        key,
        bytes: Number(found.size),
        etag: `${found.ino}-${found.mtimeNs}-${found.size}`,
        storageClass: 'STANDARD',
        modifiedAt: new Date(Number(found.mtimeMs)),
      };
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return undefined;
      throw describe(error, key);
    }
  }

  async *list(prefix: string): AsyncIterable<StoredObject> {
    yield* this.#walk('', prefix);
  }

  async *#walk(folder: string, prefix: string): AsyncIterable<StoredObject> {
    const entries = await readdir(join(this.#root, folder), { withFileTypes: true }).catch(() => []);
    // As S3 orders keys: a folder's name counts with its slash.
    const names = entries
      .filter((entry) => folder !== '' || !entry.name.startsWith('.'))
      .map((entry) => (entry.isDirectory() ? `${folder}${entry.name}/` : `${folder}${entry.name}`))
      .sort((a, b) => (a < b ? -1 : 1));
    for (const name of names) {
      if (name.endsWith('/')) {
        if (name.startsWith(prefix) || prefix.startsWith(name)) yield* this.#walk(name, prefix);
        continue;
      }
      const found = name.startsWith(prefix) ? await this.head(name) : undefined;
      if (found !== undefined) yield found;
    }
  }

  async delete(key: string): Promise<void> {
    try {
      await rm(this.#pathOf(key), { force: true });
      await rm(this.#tagsOf(key), { force: true });
    } catch (error) {
      throw describe(error, key);
    }
  }

  async restore(key: string): Promise<void> {
    // Files are never cold.
    if ((await this.head(key)) === undefined) throw new ObjectMissing(`there is no ${key}`);
  }

  async tag(key: string, tags: Readonly<Record<string, string>>): Promise<void> {
    if ((await this.head(key)) === undefined) throw new ObjectMissing(`there is no ${key}`);
    try {
      await this.#writeTags(key, tags);
    } catch (error) {
      throw describe(error, key);
    }
  }

  async tags(key: string): Promise<Record<string, string>> {
    const text = await readFile(this.#tagsOf(key), 'utf8').catch(() => '{}');
    const tags: unknown = JSON.parse(text);
    return typeof tags === 'object' && tags !== null
      ? Object.fromEntries(Object.entries(tags).map(([name, value]) => [name, String(value)]))
      : {};
  }

  async #writeTags(key: string, tags: Readonly<Record<string, string>>): Promise<void> {
    await mkdir(dirname(this.#tagsOf(key)), { recursive: true });
    await this.#writeAside(this.#tagsOf(key), JSON.stringify(tags));
  }

  async #writeAside(path: string, text: string): Promise<void> {
    const written = join(this.#root, SCRATCH, randomUUID());
    await writeWhole(written, Buffer.from(text), undefined);
    await rename(written, path);
  }

  async setLifecycle(rules: readonly LifecycleRule[]): Promise<void> {
    const ours = new Set(rules.map((rule) => rule.id));
    const kept = (await this.lifecycle()).filter((rule) => !ours.has(rule.id));
    await this.#writeAside(join(this.#root, RULES), JSON.stringify([...kept, ...rules], null, 2));
  }

  async lifecycle(): Promise<LifecycleRule[]> {
    const text = await readFile(join(this.#root, RULES), 'utf8').catch(() => '[]');
    const rules: LifecycleRule[] = JSON.parse(text);
    return rules;
  }

  async expire(now: number): Promise<string[]> {
    const deleted: string[] = [];
    for (const { prefix, tags, expireDays } of await this.lifecycle()) {
      if (expireDays === undefined) continue;
      for await (const object of this.list(prefix)) {
        if (object.modifiedAt.getTime() > now - expireDays * DAY) continue;
        const own = await this.tags(object.key);
        if (!Object.entries(tags).every(([name, value]) => own[name] === value)) continue;
        await this.delete(object.key);
        deleted.push(object.key);
      }
    }
    return deleted;
  }

  async check(): Promise<void> {
    await writeWhole(join(this.#root, SCRATCH, 'check'), Buffer.from('ok'), undefined).catch((error) => {
      throw describe(error, this.#root);
    });
  }

  close(): void {
    // Nothing is kept open.
  }

  #pathOf(key: string): string {
    checkKey(key);
    if (key.startsWith('.')) throw new RangeError(`not an object key: ${key}`);
    return join(this.#root, key);
  }

  #tagsOf(key: string): string {
    checkKey(key);
    return join(this.#root, TAGS, `${key}.json`);
  }
}

/** @throws {ChecksumMismatch} */
async function writeWhole(path: string, body: Uint8Array | Readable, sha256: string | undefined): Promise<void> {
  const hash = createHash('sha256');
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'w');
    const chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array> = body instanceof Uint8Array ? [body] : body;
    for await (const chunk of chunks) {
      hash.update(chunk);
      for (let at = 0; at < chunk.length; ) at += (await handle.write(chunk, at)).bytesWritten;
    }
    await handle.sync();
  } finally {
    await handle?.close();
  }
  const got = hash.digest('hex');
  if (sha256 !== undefined && got !== sha256) throw new ChecksumMismatch(`announced ${sha256}, arrived ${got}`);
}

/** Puts the content of `from` at `to`, keeping `from`. */
async function moveCopy(from: string, to: string, aside: string): Promise<void> {
  await link(from, aside);
  await rename(aside, to);
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';

/** The system's errors in the port's terms. */
function describe(error: unknown, key: string): unknown {
  switch (codeOf(error)) {
    case 'EEXIST':
      return new PreconditionFailed(`${key} exists`, { cause: error });
    case 'ENOENT':
    case 'EISDIR':
      return new ObjectMissing(`there is no ${key}`, { cause: error });
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new ObjectStoreUnavailable(`no room for ${key}`, { cause: error });
    case 'EACCES':
    case 'EIO':
    case 'EROFS':
    case 'EMFILE':
      return new ObjectStoreUnavailable(`${key}: ${codeOf(error)}`, { cause: error });
    default:
      return error;
  }
}
