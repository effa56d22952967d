import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { JobRun } from '../../schemas/index.ts';
import type { ArchivedDay } from '../../tiering/index.ts';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';

const DAY = 86_400_000;
const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const server = new TestServer();
beforeAll(async () => {
  await server.start({ ARCHIVE_PART_ROWS: '1000', ARCHIVE_DUTY_PERCENT: '100' });
}, 120_000);
afterAll(() => server.dispose());

const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10);
const today = Math.floor(Date.now() / DAY) * DAY;

interface Found {
  event: { id: string; source: string; subject: string; time: string; data: Record<string, unknown> };
}
const search = (query: string) => server.json<Found[]>(`/api/v1/events?${query}`);

/** Runs a job by its route and waits for its end. */
async function runJob(path: string, body: Record<string, unknown>): Promise<JobRun> {
  const answer = await server.request(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  expect(answer.status).toBe(202);
  const { job } = (await answer.json()) as { job: string };
  return until(async () => {
    const run = await server.json<JobRun>(`/api/v1/jobs/${job}`);
    return run.status === 'succeeded' || run.status === 'failed' ? run : undefined;
  }, 60_000);
}

const line = (i: number, day: number) =>
  JSON.stringify({
    timestamp: new Date(day + i * 1_000).toISOString(),
    customer_id: `c-${i % 2}`,
    request_id: `r-${dayOf(day)}-${i}`,
    user_id: `u-${i % 5}`,
    endpoint: '/a',
    method: 'GET',
    status_code: 200,
    duration_ms: 1.5,
    tokens_consumed: i,
    extra: { n: i },
  });

describe('the archive over HTTP', () => {
  test('P9: days leave by a request, are listed, and stay searchable', async () => {
    for (const back of [20, 10, 5])
      expect((await server.post(Array.from({ length: 60 }, (_, i) => line(i, today - back * DAY)))).status).toBe(204);
    await server.settled();
    const from = new Date(today - 30 * DAY).toISOString();
    const before = await search(`from=${from}&limit=1000`);
    expect(before).toHaveLength(180);
    const run = await runJob('/api/v1/archives/run', { before: dayOf(today - 7 * DAY) });
    expect(run).toMatchObject({
      status: 'succeeded',
      result: { archived: [dayOf(today - 20 * DAY), dayOf(today - 10 * DAY)], rows: 120 },
    });
    const { data } = await server.json<{ data: ArchivedDay[] }>('/api/v1/archives');
    expect(data).toMatchObject([
      { day: dayOf(today - 10 * DAY), tier: 'warm', rows: 60 },
      { day: dayOf(today - 20 * DAY), tier: 'warm', rows: 60, files: [{ rows: 60 }] },
    ]);
    expect(data[0]?.verified_at).toMatch(/Z$/);
    expect(data[0]?.manifest_sha256).toMatch(/^[0-9a-f]{64}$/);
    const plain = (found: Found[]) => found.map(({ event }) => event);
    expect(plain(await search(`from=${from}&limit=1000`))).toEqual(plain(before));
  });

  test('pages run through database and archive, each event once', async () => {
    const seen: string[] = [];
    let path: string | undefined = `/api/v1/events?from=${new Date(today - 30 * DAY).toISOString()}&limit=25`;
    while (path !== undefined) {
      const answer: Response = await server.request(path);
      for (const { event } of (await answer.json()) as Found[]) seen.push(event.id);
      path = /<([^>]+)>/.exec(answer.headers.get('link') ?? '')?.[1];
    }
    expect(seen).toHaveLength(180);
    expect(new Set(seen).size).toBe(180);
  });

  test('every parameter of the search reaches the archive', async () => {
    const from = `from=${new Date(today - 30 * DAY).toISOString()}`;
    const old = dayOf(today - 20 * DAY);
    expect(await search(`${from}&request_id=r-${old}-7`)).toMatchObject([
      {
        event: {
          subject: 'c-1',
          data: { tokens_consumed: 7, user_id: 'u-2', request_id: `r-${old}-7`, extra: { n: 7 } },
        },
      },
    ]);
    expect(await search(`${from}&user_id=u-3&subject=c-1&limit=1000`)).toHaveLength(18);
    expect(await search(`${from}&type=tool_use`)).toEqual([]);
    expect(await search(`${from}&id=r-${old}-9`)).toHaveLength(1);
    expect(await search(`${from}&ingestedAtTo=2020-01-01T00:00:00Z`)).toEqual([]);
    expect(await search(`from=${old}T00:00:10Z&to=${old}T00:00:20Z`)).toHaveLength(10);
  });

  test('P9: late events of an archived day follow', async () => {
    await server.post([line(100, today - 20 * DAY)]);
    await server.settled();
    const run = await runJob('/api/v1/archives/run', { before: dayOf(today - 7 * DAY) });
    expect(run.result).toMatchObject({ archived: [dayOf(today - 20 * DAY)], rows: 1 });
    const { data } = await server.json<{ data: ArchivedDay[] }>(`/api/v1/archives?to=${dayOf(today - 20 * DAY)}`);
    expect(data).toMatchObject([{ rows: 61, files: [{ rows: 60 }, { rows: 1 }] }]);
    expect((await runJob('/api/v1/archives/verify', {})).result).toMatchObject({ days: 2, damaged: [], frozen: [] });
  });

  test('P3, P6, P9: a recalled day is read in the database, its events can be voided again, and it leaves at the end of its stay', async () => {
    const old = dayOf(today - 20 * DAY);
    const query = `from=${old}T00:00:00Z&to=${old}T12:00:00Z&limit=1000`;
    const tokens = async () => {
      const range = `from=${old}T00:00:00Z&to=${dayOf(today - 19 * DAY)}T00:00:00Z`;
      const { data } = await server.json<{ data: { value: number }[] }>(
        `/api/v1/meters/tokens/query?subject=c-1&${range}&windowSize=DAY`,
      );
      return data.map((one) => one.value);
    };
    const voidEvent = (id: string) =>
      server.request(`/api/v1/events/${id}?subject=c-1&reason=test`, { method: 'DELETE' });
    const letters = async () => {
      await server.settled();
      return (await server.json<{ data: { reason: string }[] }>('/api/v1/dead-letters')).data;
    };
    const before = await search(query);
    expect(await tokens()).toEqual([900]);
    const refused = await voidEvent(`r-${old}-9`);
    expect(refused.status).toBe(409);
    const recall = `/api/v1/archives/${old}/recall`;
    expect(await refused.json()).toMatchObject({ code: 'event_archived', days: [old], recall: [recall] });
    expect((await voidEvent(`r-${old}-never`)).status).toBe(404);

    expect((await runJob(`/api/v1/archives/${old}/recall`, { days: 14 })).result).toMatchObject({ day: old, rows: 61 });
    const listed = await server.json<{ data: ArchivedDay[] }>(`/api/v1/archives?to=${old}`);
    expect(listed.data).toMatchObject([{ tier: 'warm', rows: 61, recalled_until: expect.stringMatching(/Z$/) }]);
    expect((await search(query)).map(({ event }) => event)).toEqual(before.map(({ event }) => event));
    expect((await voidEvent(`r-${old}-9`)).status).toBe(202);
    expect(await letters()).toEqual([]);
    expect(await tokens()).toEqual([891]);

    const stays = await runJob('/api/v1/archives/run', { before: dayOf(today - 7 * DAY) });
    expect(stays.result).toMatchObject({ archived: [], released: [], left: {} });
    await runJob(`/api/v1/archives/${old}/recall`, { days: 0 });
    const leaves = await runJob('/api/v1/archives/run', { before: dayOf(today - 7 * DAY) });
    expect(leaves.result).toMatchObject({ released: [old], rows: 0, left: {} });
    expect((await search(query)).map(({ event }) => event)).toEqual(before.map(({ event }) => event));
    expect(await tokens()).toEqual([891]);
  });

  test('P3: a new meter counts the archived days, and rollups are verified against them by a command', async () => {
    const headers = { 'content-type': 'application/json' };
    const meter = { slug: 'old_tokens', eventType: '*', aggregation: 'SUM', valueProperty: '$.tokens_consumed' };
    const made = await server.request('/api/v1/meters', { method: 'POST', headers, body: JSON.stringify(meter) });
    expect(made.status).toBe(201);
    await until(async () => {
      const { complete } = await server.json<{ complete: boolean }>('/api/v1/meters/old_tokens');
      return complete ? true : undefined;
    }, 60_000);
    const days = async (slug: string) => {
      const answer = await server.request(`/api/v1/meters/${slug}/query?windowSize=DAY`);
      expect(answer.headers.get('tidemark-incomplete')).toBeNull();
      return ((await answer.json()) as { data: { value: number }[] }).data.map((one) => one.value);
    };
    expect(await days('old_tokens')).toEqual(await days('tokens'));
    const verify = (...args: string[]) =>
      promisify(execFile)(process.execPath, [
        MAIN,
        'rollups',
        'verify',
        ...args,
        '--url',
        server.url,
        '--key',
        ADMIN_KEY,
      ]);
    const range = ['--from', dayOf(today - 20 * DAY), '--to', dayOf(today - 5 * DAY)];
    expect(JSON.parse((await verify(...range)).stdout)).toMatchObject({ identical: true, days: 3, left: {} });
    await expect(verify(...range, '--meter', 'nothing')).rejects.toMatchObject({ code: 1 });
    await expect(verify('--from', '2026-02-30', '--to', '2026-03-01')).rejects.toMatchObject({ code: 1 });
  });

  test('P7: a tenant finds its own events in the archive only, and nothing of its administration', async () => {
    const answer = await server.request('/api/v1/keys', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ tenant: 'c-1', scopes: ['read', 'admin'] }),
    });
    const { secret } = (await answer.json()) as { secret: string };
    const headers = { authorization: `Bearer ${secret}` };
    const from = new Date(today - 30 * DAY).toISOString();
    const own = (await (await server.request(`/api/v1/events?from=${from}&limit=1000`, { headers })).json()) as Found[];
    // With the void of the test before.
    expect(own.length).toBe(91);
    expect(new Set(own.map(({ event }) => event.subject))).toEqual(new Set(['c-1']));
    expect((await server.request(`/api/v1/events?from=${from}&subject=c-0`, { headers })).status).toBe(404);
    expect((await server.request('/api/v1/archives', { headers })).status).toBe(403);
  });

  test.each([
    ['/api/v1/archives/run', { before: '2026-02-30' }, 400],
    ['/api/v1/rollups/verify', { from: '2026-02-02', to: '2026-02-01' }, 400],
    ['/api/v1/rollups/verify', { from: '2026-02-02' }, 400],
    ['/api/v1/rollups/verify', { from: '2026-02-02', to: '2026-02-02', tenant: 'nobody-here' }, 404],
    ['/api/v1/archives/run', { before: 7 }, 400],
    ['/api/v1/archives/2020-01-01/restore', {}, 404],
    ['/api/v1/archives/x/restore', {}, 400],
    ['/api/v1/archives/2020-01-01/recall', { days: 7 }, 404],
    ['/api/v1/archives/x/recall', { days: 7 }, 400],
    ['/api/v1/archives/2020-01-01/recall', {}, 400],
    ['/api/v1/archives/2020-01-01/recall', { days: 400 }, 400],
    [`/api/v1/archives/${dayOf(today - 20 * DAY)}/restore`, { days: -1 }, 400],
    [`/api/v1/archives/${dayOf(today - 20 * DAY)}/restore`, {}, 202],
  ])('%s %j is answered %i', async (path, body, status) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await server.request(path, { method: 'POST', headers, body: JSON.stringify(body) });
    expect(answer.status).toBe(status);
  });
});
