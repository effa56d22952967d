export * from './exact.ts';
export * from './meters.ts';
export * from './sketch.ts';
export * from './windows.ts';
