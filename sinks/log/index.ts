export { openEmbeddedLog } from './embedded/embedded-log.ts';
export type { EmbeddedLogOptions } from './embedded/environment.ts';
export * from './kafka/index.ts';
export { pause } from './pause.ts';
export * from './port.ts';
