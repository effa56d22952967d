export * from './webhook/send-webhook.ts';
