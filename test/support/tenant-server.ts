/** Provisioned tenants of a real server, as their owners and an administrator see them. */
import pg from 'pg';
import { type TestServer, until } from './server.ts';

type Row = Record<string, unknown>;

export interface Run {
  status: string;
  result: Record<string, unknown> | null;
  error: string | null;
}

/** What demo data puts into a tenant's schema, in one row. */
export const ROWS = `SELECT (SELECT json_agg(a ORDER BY a.id)::text FROM agents AS a) AS agents, (SELECT json_agg(t ORDER BY t.id)::text FROM tasks AS t) AS tasks`;

export function tenantsOn(server: TestServer) {
  async function post(path: string, body: object = {}): Promise<Row> {
    const answer = await server.request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return (await answer.json()) as Row;
  }
  async function urlOf(slug: string): Promise<string> {
    const env = await (await server.request(`/api/v1/tenants/${slug}/env`)).text();
    return /^DATABASE_URL=(.*)$/m.exec(env)?.[1] ?? '';
  }
  return {
    post,
    urlOf,
    create: (slug: string) => post('/api/v1/tenants', { slug, name: slug, demo_data: true }),
    /** As the tenant's own role. */
    query: async (slug: string, sql: string) => ask(await urlOf(slug), sql),
    /** As the database's administrator. */
    admin: (sql: string) => ask(server.databaseUrl, sql),
    /** A job's end. */
    ended: (job: unknown) =>
      until(async () => {
        const run = await server.json<Run>(`/api/v1/jobs/${job}`);
        return run.status === 'succeeded' || run.status === 'failed' ? run : undefined;
      }, 60_000),
  };
}

async function ask(url: string, sql: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}
