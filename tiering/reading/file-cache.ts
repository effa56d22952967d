import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ObjectStore } from '../../sinks/index.ts';
import { fetchFile } from '../archive/fetch-file.ts';
import type { ManifestFile } from '../manifest.ts';

interface Entry {
  path: Promise<string>;
  bytes: number;
  /** readers at work */
  users: number;
  /** Unix ms */
  until: number;
}

/** How long a copy is good: what was erased from the archive must not live on in copies. */
const KEPT_MS = 3_600_000;

/** Files of the archive on the local disk, the least recently used go first; where the store is a folder there are no copies. */
export class FileCache {
  readonly #store: ObjectStore;
  readonly #folder: string;
  readonly #most: number;
  readonly #now: () => number;
  /** by SHA-256, the least recently used first */
  readonly #entries = new Map<string, Entry>();

  constructor(store: ObjectStore, folder: string, mostBytes: number, now: () => number) {
    this.#store = store;
    this.#folder = folder;
    this.#most = mostBytes;
    this.#now = now;
  }

  /** Runs `work` with paths of the files, which stay as long. @throws {ObjectFrozen} | TidemarkError `archive_damaged` */
  async use<T>(files: readonly ManifestFile[], work: (paths: string[]) => Promise<T>): Promise<T> {
    const held: Entry[] = [];
    try {
      const paths: string[] = [];
      for (const file of files) {
        const local = this.#store.localPath(file.key);
        if (local !== undefined) {
          paths.push(local);
          continue;
        }
        const entry = this.#entryOf(file);
        held.push(entry);
        entry.users++;
        paths.push(await entry.path);
      }
      return await work(paths);
    } finally {
      for (const entry of held) entry.users--;
      await this.#evict();
    }
  }

  #entryOf(file: ManifestFile): Entry {
    const known = this.#entries.get(file.sha256);
    if (known !== undefined && known.until > this.#now()) {
      this.#entries.delete(file.sha256);
      this.#entries.set(file.sha256, known);
      return known;
    }
    const entry: Entry = { path: this.#fetch(file), bytes: file.bytes, users: 0, until: this.#now() + KEPT_MS };
    entry.path.catch(() => this.#entries.delete(file.sha256));
    this.#entries.set(file.sha256, entry);
    return entry;
  }

  async #fetch(file: ManifestFile): Promise<string> {
    await mkdir(this.#folder, { recursive: true });
    const path = join(this.#folder, `${file.sha256}.parquet`);
    await fetchFile(this.#store, file, `${path}.part`);
    await rename(`${path}.part`, path);
    return path;
  }

  async #evict(): Promise<void> {
    let bytes = [...this.#entries.values()].reduce((sum, entry) => sum + entry.bytes, 0);
    for (const [sha256, entry] of this.#entries) {
      if (entry.users > 0 || (bytes <= this.#most && entry.until > this.#now())) continue;
      this.#entries.delete(sha256);
      bytes -= entry.bytes;
      const path = await entry.path.catch(() => undefined);
      if (path !== undefined) await rm(path, { force: true });
    }
  }
}
