/** `npm run test:kafka`: every server of the end-to-end tests uses Kafka as its log. */
if (process.env.E2E_LOG === 'kafka') await import('./on-kafka.ts');

export {};
