import type { FastifyInstance } from 'fastify';
import { TidemarkError } from '../schemas/index.ts';

/** Significant digits that every double keeps. */
const SAFE_DIGITS = 15;

/**
 * Bodies of this plugin keep every digit: a number of more than 15 significant digits arrives as its source text
 * (TC39 proposal-json-parse-with-source), any other as the number it is.
 */
export function keepEveryDigit(app: FastifyInstance): void {
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => {
    if (body === '') {
      done(null, {});
      return;
    }
    try {
      done(null, JSON.parse(String(body), revive));
    } catch {
      done(new TidemarkError('invalid_json', 'the body is not JSON'));
    }
  });
}

function revive(key: string, value: unknown, context?: { source?: string }): unknown {
  if (key === '__proto__') return undefined;
  if (typeof value !== 'number' || context?.source === undefined) return value;
  return context.source
    .replace(/[eE].*$/, '')
    .replace(/\D/g, '')
    .replace(/^0+/, '').length > SAFE_DIGITS
    ? context.source
    : value;
}
