import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { TidemarkError } from '../../schemas/index.ts';
import { Measure, ObjectMissing, type ObjectStore } from '../../sinks/index.ts';
import type { ManifestFile } from '../manifest.ts';

/**
 * Gets a file of the archive onto the disk, and holds it against its manifest.
 * @throws TidemarkError `archive_damaged` naming the file | {ObjectFrozen} | {ObjectStoreUnavailable}
 */
export async function fetchFile(store: ObjectStore, file: ManifestFile, path: string): Promise<void> {
  const measure = new Measure();
  try {
    await pipeline(await store.get(file.key), measure, createWriteStream(path));
  } catch (error) {
    if (error instanceof ObjectMissing)
      throw new TidemarkError('archive_damaged', `${file.key} is missing`, { cause: error });
    throw error;
  }
  const digest = measure.digest();
  if (digest !== file.sha256 || measure.bytes !== file.bytes)
    throw new TidemarkError(
      'archive_damaged',
      `${file.key} has ${measure.bytes} bytes with SHA-256 ${digest}, its manifest says ${file.bytes} with ${file.sha256}`,
    );
}
