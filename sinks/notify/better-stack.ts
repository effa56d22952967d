import { request } from 'undici';

/** A heartbeat of Better Stack (Uptime API v2): it alerts when `url` was not asked for longer than period + grace. */
export interface Heartbeat {
  id: string;
  url: string;
}

export interface HeartbeatService {
  /** Finds the heartbeat of this name, or makes it: safe to repeat. */
  ensure(name: string, seconds: { period: number; grace: number }): Promise<Heartbeat>;
  /** By name; idempotent. */
  remove(name: string): Promise<void>;
  /** Says that all is well. */
  beat(url: string): Promise<void>;
}

const TIMEOUT_MS = 10_000;
/** Pages of the list that are looked through for a name. */
const MOST_PAGES = 100;

interface Resource {
  id: string;
  attributes: { name?: string; url: string };
}

/**
 * @param base `https://uptime.betterstack.com` but for tests
 * @throws Error of every method: the service does not answer as documented, or at all
 */
export function openBetterStack({ base, token }: { base: string; token: string }): HeartbeatService {
  const root = `${base.replace(/\/$/, '')}/api/v2/heartbeats`;
  const ask = async (method: 'GET' | 'POST' | 'DELETE', url: string, body?: object) => {
    const answer = await request(url, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 300 && !(method === 'DELETE' && answer.statusCode === 404))
      throw new Error(`Better Stack answered ${answer.statusCode} to ${method} heartbeats`);
    const parsed: unknown = text === '' ? {} : JSON.parse(text);
    return parsed;
  };
  const find = async (name: string): Promise<Resource | undefined> => {
    for (let page = 1; page <= MOST_PAGES; page++) {
      const { data, pagination } = listOf(await ask('GET', `${root}?page=${page}`));
      const found = data.find((one) => one.attributes.name === name);
      if (found !== undefined || pagination?.next == null) return found;
    }
    return undefined;
  };
  return {
    ensure: async (name, { period, grace }) => {
      const known = await find(name);
      const { id, attributes } = known ?? resourceOf(await ask('POST', root, { name, period, grace }));
      return { id, url: attributes.url };
    },
    remove: async (name) => {
      const known = await find(name);
      if (known !== undefined) await ask('DELETE', `${root}/${encodeURIComponent(known.id)}`);
    },
    beat: async (url) => {
      const answer = await request(url, { method: 'GET', headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
      await answer.body.dump();
      if (answer.statusCode >= 300) throw new Error(`Better Stack answered ${answer.statusCode} to a heartbeat`);
    },
  };
}

const isResource = (value: unknown): value is Resource =>
  typeof value === 'object' &&
  value !== null &&
  'id' in value &&
  typeof value.id === 'string' &&
  'attributes' in value &&
  typeof value.attributes === 'object' &&
  value.attributes !== null &&
  'url' in value.attributes &&
  typeof value.attributes.url === 'string';

function resourceOf(answer: unknown): Resource {
  if (typeof answer === 'object' && answer !== null && 'data' in answer && isResource(answer.data)) return answer.data;
  throw new Error('Better Stack answered something else than a heartbeat');
}

function listOf(answer: unknown): { data: Resource[]; pagination?: { next?: string | null } } {
  if (typeof answer !== 'object' || answer === null || !('data' in answer) || !Array.isArray(answer.data))
    throw new Error('Better Stack answered something else than a list of heartbeats');
  const pagination =
    'pagination' in answer && typeof answer.pagination === 'object' && answer.pagination !== null
      ? answer.pagination
      : undefined;
  const next = pagination !== undefined && 'next' in pagination ? pagination.next : null;
  return { data: answer.data.filter(isResource), pagination: { next: typeof next === 'string' ? next : null } };
}
