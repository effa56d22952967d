export * from './definition.ts';
export * from './exact.ts';
export * from './json-path.ts';
export * from './levels.ts';
export * from './meters.ts';
export * from './sketch.ts';
export * from './sketch-text.ts';
export * from './windows.ts';
