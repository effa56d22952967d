export * from './database/index.ts';
export * from './log/index.ts';
export * from './notify/index.ts';
export * from './objects/index.ts';
