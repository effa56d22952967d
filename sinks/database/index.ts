export * from './binary-copy.ts';
export * from './connect.ts';
export * from './copy.ts';
export * from './embedded/embedded-postgres.ts';
export { NativeEngine } from './engines/native/native-engine.ts';
export type * from './engines/port.ts';
export * from './key-store.ts';
export * from './migrate.ts';
export * from './tenant-directory.ts';
