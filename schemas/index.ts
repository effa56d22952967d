export * from './avro/codec.ts';
export * from './avro/primitives.ts';
export * from './errors.ts';
export * from './event.ts';
export * from './meters.ts';
export * from './principal.ts';
export * from './settings.ts';
export * from './time-tables.ts';
