export * from './rating/index.ts';
