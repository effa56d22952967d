import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';

/** What Better Stack's Uptime API v2 documents of heartbeats, kept in memory: create, list, delete, and the beats. */
export async function startHeartbeatServer(token: string) {
  const heartbeats = new Map<string, { name: string; period: number; grace: number }>();
  const beats: string[] = [];
  let failures = 0;
  const server = createServer(async (request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const answer = (status: number, body?: object) =>
      response
        .writeHead(status, { 'content-type': 'application/json' })
        .end(body === undefined ? undefined : JSON.stringify(body));
    const beat = /^\/api\/v1\/heartbeat\/([\w-]+)$/.exec(url.pathname)?.[1];
    if (beat !== undefined) {
      beats.push(beat);
      return answer(heartbeats.has(beat) ? 200 : 404);
    }
    if (request.headers.authorization !== `Bearer ${token}`) return answer(401, { errors: 'Invalid Team API token' });
    if (failures > 0) {
      failures--;
      return answer(503, { errors: 'try later' });
    }
    const { port } = server.address() as { port: number };
    const present = (id: string, one: { name: string; period: number; grace: number }) => ({
      id,
      type: 'heartbeat',
      attributes: { ...one, url: `http://127.0.0.1:${port}/api/v1/heartbeat/${id}`, status: 'pending' },
    });
    const id = /^\/api\/v2\/heartbeats\/([\w-]+)$/.exec(url.pathname)?.[1];
    if (request.method === 'DELETE' && id !== undefined) return answer(heartbeats.delete(id) ? 204 : 404);
    if (url.pathname !== '/api/v2/heartbeats') return answer(404, { errors: 'Resource not found' });
    if (request.method === 'GET') {
      const page = Number(url.searchParams.get('page') ?? 1);
      const all = [...heartbeats].map(([key, one]) => present(key, one));
      const next = all.length > page * 50 ? `http://127.0.0.1:${port}/api/v2/heartbeats?page=${page + 1}` : null;
      return answer(200, { data: all.slice((page - 1) * 50, page * 50), pagination: { next } });
    }
    const body = JSON.parse(await read(request)) as { name: string; period: number; grace: number };
    const made = randomUUID();
    heartbeats.set(made, { name: body.name, period: body.period, grace: body.grace });
    return answer(201, { data: present(made, body) });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    heartbeats,
    beats,
    failNext: (count: number) => {
      failures = count;
    },
    close: () =>
      new Promise<void>((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

async function read(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}
