import { Pool } from 'undici';
import { randomFrom } from '../cli/demo/sample.ts';

/** The same job for every bench: 200 tenants, the whole built-in catalogue, 5 % duplicates, 2 % late, about 250 bytes an event. */
export const TENANTS = 200;
const ENDPOINTS = ['/api/v1/agents', '/api/v1/tasks', '/api/v1/runs', '/api/v1/search', '/api/v1/files'];
const METHODS = ['POST', 'POST', 'GET', 'GET', 'PUT'];

export interface Totals {
  events: number;
  distinct: number;
  /** sum of tokens of distinct events */
  tokens: number;
}

export interface Load extends Totals {
  /** NDJSON-free: JSON arrays, ready to be posted */
  bodies: Buffer[];
}

/**
 * @param run makes keys of several loads differ
 * @param at time of event i of n, Unix ms
 * @param tenants that the events are of
 */
export function makeLoad(
  events: number,
  perRequest: number,
  run: string,
  at: (i: number) => number,
  tenants: number = TENANTS,
): Load {
  const random = randomFrom(events + run.length);
  const bodies: Buffer[] = [];
  const recent: string[] = [];
  let distinct = 0;
  let tokens = 0;
  let batch: string[] = [];
  for (let i = 0; i < events; i++) {
    const repeat = i > 1000 && random() < 0.05 ? recent[Math.floor(random() * recent.length)] : undefined;
    if (repeat !== undefined) batch.push(repeat);
    else {
      const used = random() < 0.85 ? Math.floor(random() * 3000) : 0;
      const json = JSON.stringify(
        makeEvent(
          { key: `${run}-${i}`, tenants },
          at(i) - (random() < 0.02 ? Math.floor(random() * 7_200_000) : 0),
          used,
          random,
        ),
      );
      recent[i % 5000] = json;
      batch.push(json);
      distinct++;
      tokens += used;
    }
    if (batch.length === perRequest || i === events - 1) {
      bodies.push(Buffer.from(perRequest === 1 ? (batch[0] ?? '') : `[${batch.join(',')}]`));
      batch = [];
    }
  }
  return { bodies, events, distinct, tokens };
}

function makeEvent(
  { key, tenants }: { key: string; tenants: number },
  at: number,
  tokens: number,
  random: () => number,
): Record<string, unknown> {
  const base = {
    timestamp: new Date(at).toISOString(),
    customer_id: `tenant_${String(Math.floor(random() * random() * tenants)).padStart(4, '0')}`,
    request_id: key,
    user_id: `user_${Math.floor(random() * 500)}`,
  };
  const used = tokens > 0 ? { tokens_consumed: tokens } : {};
  const kind = random();
  if (kind < 0.85) {
    const e = Math.floor(random() * ENDPOINTS.length);
    const status = random() < 0.95 ? 200 : random() < 0.5 ? 404 : 500;
    return {
      ...base,
      level: 'info',
      endpoint: ENDPOINTS[e],
      method: METHODS[e],
      status_code: status,
      duration_ms: Number(Math.exp(4 + random() * 2).toFixed(2)),
      ...used,
      message: 'Agent created successfully',
    };
  }
  if (kind < 0.9)
    return {
      ...base,
      ...used,
      type: 'agent_invocation',
      agent_type: 'planner',
      status: 'ok',
      duration_ms: Math.floor(random() * 5000),
      queue_wait_ms: Math.floor(random() * 200),
    };
  if (kind < 0.94) return { ...base, ...used, type: 'tool_use', tool: 'search', status: 'ok' };
  if (kind < 0.97) return { ...base, ...used, type: 'session', delta: random() < 0.5 ? 1 : -1 };
  return { ...base, ...used, type: 'feature_use', feature: `feature${Math.floor(random() * 8)}` };
}

/** Posts bodies over `connections`; busy answers are retried. @param perSecond of bodies; undefined: as fast as it goes @returns seconds */
export async function postAll(
  url: string,
  key: string,
  bodies: readonly Buffer[],
  {
    connections = 8,
    perSecond,
    path = '/api/v1/logs',
    onAcknowledged,
  }: { connections?: number; perSecond?: number; path?: string; onAcknowledged?: (i: number) => void } = {},
): Promise<number> {
  const pool = new Pool(new URL(url).origin, { connections, pipelining: 1 });
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const began = performance.now();
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < bodies.length; i = next++) {
      if (perSecond !== undefined) {
        const wait = (i / perSecond) * 1000 - (performance.now() - began);
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      }
      for (;;) {
        const answer = await pool.request({ path, method: 'POST', headers, body: bodies[i] ?? null });
        await answer.body.dump();
        if (answer.statusCode === 204) break;
        if (answer.statusCode !== 503) throw new Error(`answered ${answer.statusCode}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      onAcknowledged?.(i);
    }
  };
  await Promise.all(Array.from({ length: connections }, worker));
  const seconds = (performance.now() - began) / 1000;
  await pool.close();
  return seconds;
}
