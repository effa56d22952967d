export * from './database/binary-copy.ts';
export * from './database/copy.ts';
export type * from './database/engines/port.ts';
export * from './log/index.ts';
