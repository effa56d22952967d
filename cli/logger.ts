import pino, { type Logger } from 'pino';

/** Logs in the form that we ask of our users: timestamp, level as a word, message; secrets never. */
export function createLogger(level: string, role: string): Logger {
  return pino({
    level,
    base: { service: 'tidemark', role },
    messageKey: 'message',
    timestamp: () => `,"timestamp":"${new Date().toISOString()}"`,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: ['req.headers.authorization', '*.password', '*.secret', 'authorization'], censor: '[secret]' },
  });
}
