export { openFileStore } from './files/files-store.ts';
export { Measure } from './measure.ts';
export * from './port.ts';
export { isFrozen, openS3Store, type S3Settings } from './s3/s3-store.ts';
