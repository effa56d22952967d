export * from './webhook/send-webhook.ts';
export * from './better-stack.ts';
export * from './email.ts';
