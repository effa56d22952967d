import { setTimeout as delay } from 'node:timers/promises';
import { Pool } from 'undici';
import { TidemarkError } from '../../schemas/index.ts';

export interface SendResult {
  accepted: number;
  rejected: { index: number; code: string; detail: string }[];
}

export interface Sender {
  /** Posts log lines; tries again while the server is busy, limited or away. @throws TidemarkError when it is refused */
  send(lines: readonly string[]): Promise<SendResult>;
  close(): Promise<void>;
}

const LONGEST_WAIT_MS = 10_000;
/** Tries while the server does not answer at all; busy answers are retried for ever. */
const MOST_FAILURES = 30;

/** Posts NDJSON to /api/v1/logs over a few kept-alive connections. */
export function openSender({
  url,
  key,
  backfill,
  connections,
}: {
  url: string;
  key: string;
  backfill: boolean;
  connections: number;
}): Sender {
  const base = new URL(url);
  const pool = new Pool(base.origin, { connections, pipelining: 1 });
  const headers = {
    authorization: `Bearer ${key}`,
    'content-type': 'application/x-ndjson',
    ...(backfill ? { 'tidemark-backfill': 'true' } : {}),
  };

  const attempt = async (body: string): Promise<{ status: number; retryAfter: number; text: string }> => {
    const answer = await pool.request({ path: '/api/v1/logs', method: 'POST', headers, body });
    const text = await answer.body.text();
    return { status: answer.statusCode, retryAfter: Number(answer.headers['retry-after'] ?? 0), text };
  };

  return {
    send: async (lines) => {
      const body = lines.join('\n');
      let failures = 0;
      for (let wait = 100; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
        try {
          const { status, retryAfter, text } = await attempt(body);
          if (status === 204) return { accepted: lines.length, rejected: [] };
          if (status === 200) return JSON.parse(text) as SendResult;
          if (status === 503 || status === 429) {
            await delay(Math.max(retryAfter * 1000, wait));
            continue;
          }
          const problem = parseProblem(text);
          if (problem.code === 'all_rejected') return { accepted: 0, rejected: problem.rejected ?? [] };
          throw new TidemarkError(
            'invalid_setting',
            `the server refused (${status} ${problem.code ?? ''}): ${problem.detail ?? text.slice(0, 200)}`,
          );
        } catch (error) {
          if (error instanceof TidemarkError) throw error;
          if (++failures > MOST_FAILURES)
            throw new TidemarkError(
              'invalid_setting',
              `${url} does not answer: ${error instanceof Error ? error.message : error}`,
            );
          await delay(wait);
        }
      }
    },
    close: () => pool.close(),
  };
}

function parseProblem(text: string): { code?: string; detail?: string; rejected?: SendResult['rejected'] } {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
