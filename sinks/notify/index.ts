export * from './better-stack.ts';
export * from './email.ts';
export * from './webhook/send-webhook.ts';
