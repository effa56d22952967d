import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startHeartbeatServer } from '../support/heartbeat-server.ts';
import { startMailServer } from '../support/mail-server.ts';
import { TestServer } from '../support/server.ts';

const server = new TestServer();
let mail: Awaited<ReturnType<typeof startMailServer>>;
let heartbeats: Awaited<ReturnType<typeof startHeartbeatServer>>;

beforeAll(async () => {
  mail = await startMailServer();
  heartbeats = await startHeartbeatServer('better-token');
  await server.start({
    SMTP_URL: mail.url,
    BETTERSTACK_TOKEN: 'better-token',
    BETTERSTACK_URL: heartbeats.url,
    TENANT_DOMAIN: 'example.com',
    PROVISIONING_WAIT_MS: '30000',
  });
});
afterAll(async () => {
  await server.dispose();
  await mail.close();
  await heartbeats.close();
});

interface Created {
  id: string;
  slug: string;
  status: string;
  schema: string;
  subdomain: string;
  keys: { id: string; secret?: string }[];
  provisioning: { id: string; stream: string };
}
const create = (body: object, headers: Record<string, string> = {}) =>
  server.request('/api/v1/tenants', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });

const STEPS = [
  'tenant_record',
  'schema',
  'tenant_migrations',
  'pool',
  'configuration',
  'monitoring',
  'demo_data',
  'placement',
  'keys_and_subdomain',
  'welcome_email',
];

/** Reads a stream to its end, or to the given number of events. */
async function readStream(path: string, { after, most = 1000 }: { after?: number; most?: number } = {}) {
  const answer = await server.request(path, { headers: after === undefined ? {} : { 'last-event-id': String(after) } });
  expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/);
  const events: { id: number; event: string; data: { step?: string; status: string } }[] = [];
  let text = '';
  const decoder = new TextDecoder();
  for await (const chunk of answer.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const fields = new Map(
        text
          .slice(0, end)
          .split('\n')
          .map((line) => [line.split(': ', 1)[0], line.slice(line.indexOf(': ') + 2)] as const),
      );
      text = text.slice(end + 2);
      if (fields.has('data'))
        events.push({
          id: Number(fields.get('id')),
          event: fields.get('event') ?? '',
          data: JSON.parse(fields.get('data') ?? ''),
        });
      if (events.length >= most) return events;
    }
  }
  return events;
}

describe('a tenant is provisioned', () => {
  let created: Created;

  test('from one request: schema, keys, mail, heartbeat, demo data; every step recorded', async () => {
    const answer = await create({
      slug: 'acme',
      name: 'Acme "Ltd"; DROP TABLE tenants; -- ☃',
      email: 'ops@acme.test',
      demo_data: true,
    });
    created = (await answer.json()) as Created;
    expect([answer.status, created.status, created.subdomain]).toEqual([201, 'ready', 'https://acme.example.com']);
    expect(created.schema).toBe(`tenant_${created.id.replaceAll('-', '')}`);
    const headers = { authorization: `Bearer ${created.keys[0]?.secret}` };
    expect((await server.request('/api/v1/tenants/acme', { headers })).status).toBe(200);
    const state = await server.json<{
      status: string;
      steps: { step: string; status: string; started_at: string; ended_at: string }[];
    }>('/api/v1/tenants/acme/provisioning');
    expect(state.steps.map((one) => one.step)).toEqual(STEPS);
    expect(state.steps.map((one) => one.status)).toEqual(STEPS.map(() => 'done'));
    for (const one of state.steps) expect(Date.parse(one.ended_at)).toBeGreaterThanOrEqual(Date.parse(one.started_at));
    expect(mail.mails.map((one) => [one.to, /acme\.example\.com/.test(one.text)])).toEqual([[['ops@acme.test'], true]]);
    expect(mail.mails[0]?.text).not.toContain(created.keys[0]?.secret);
    expect([...heartbeats.heartbeats.values()].map((one) => one.name)).toEqual([`tidemark tenant ${created.id}`]);
  });

  test('its progress is a stream that goes on where its reader was', async () => {
    const all = await readStream(created.provisioning.stream);
    expect(all.map((one) => one.id)).toEqual(all.map((_, i) => i + 1));
    expect(all.at(-1)).toMatchObject({ event: 'run', data: { status: 'ready' } });
    expect(all.filter((one) => one.data.status === 'done').map((one) => one.data.step)).toEqual(STEPS);
    expect(await readStream(created.provisioning.stream, { after: 5 })).toEqual(all.slice(5));
    expect(await readStream(created.provisioning.stream, { after: all.length })).toEqual([]);
  });

  test('the same Idempotency-Key gives the same tenant, its secret once; another body is refused', async () => {
    const headers = { 'idempotency-key': 'order-1' };
    const answers = await Promise.all([1, 2, 3].map(() => create({ slug: 'again', name: 'Again' }, headers)));
    const bodies = (await Promise.all(answers.map((one) => one.json()))) as Created[];
    expect(answers.map((one) => one.status)).toEqual([201, 201, 201]);
    expect(new Set(bodies.map((one) => one.id)).size).toBe(1);
    expect(bodies.filter((one) => one.keys[0]?.secret !== undefined)).toHaveLength(1);
    const other = await create({ slug: 'again', name: 'Other' }, headers);
    expect([other.status, ((await other.json()) as { code: string }).code]).toEqual([422, 'idempotency_mismatch']);
  });

  test('who does not want to wait gets 202, and follows the stream', async () => {
    const answer = await create({ slug: 'later', name: 'Later' }, { prefer: 'respond-async' });
    const body = (await answer.json()) as Created;
    expect([answer.status, body.status]).toEqual([202, 'provisioning']);
    expect((await readStream(body.provisioning.stream)).at(-1)?.data.status).toBe('ready');
  });

  test('twenty at once, each with its own schema', async () => {
    const began = performance.now();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => create({ slug: `crowd-${i}`, name: `Crowd ${i}` })),
    );
    expect(answers.map((one) => one.status)).toEqual(answers.map(() => 201));
    expect(performance.now() - began).toBeLessThan(30_000);
  });
});
