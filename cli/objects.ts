import { join } from 'node:path';
import type { Settings } from '../schemas/index.ts';
import { type ObjectStore, openFileStore, openS3Store } from '../sinks/index.ts';

/** The object store of the settings: a bucket, or the folder `objects` of the data folder. */
export async function openObjectStore(settings: Settings, dataFolder: string): Promise<ObjectStore> {
  if (settings.S3_BUCKET === undefined) return openFileStore(join(dataFolder, 'objects'));
  return openS3Store({
    bucket: settings.S3_BUCKET,
    endpoint: settings.S3_ENDPOINT,
    // Compatible services seldom care, but requests are signed for some region.
    region: settings.AWS_REGION ?? (settings.S3_ENDPOINT === undefined ? undefined : 'us-east-1'),
    prefix: settings.S3_PREFIX,
    encryption: settings.S3_ENCRYPTION,
    kmsKey: settings.S3_KMS_KEY,
  });
}
