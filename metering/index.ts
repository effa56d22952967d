export * from './exact.ts';
export * from './sketch.ts';
