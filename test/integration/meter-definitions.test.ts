import { OpenMeter } from '@openmeter/sdk';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer } from '../support/server.ts';

const server = new TestServer();
let client: OpenMeter;
beforeAll(async () => {
  await server.start({ ROLES: 'ingest,query' });
  client = new OpenMeter({ baseUrl: server.url, apiKey: ADMIN_KEY });
});
afterAll(() => server.dispose());

const send = (method: string, path: string, body?: unknown, key = ADMIN_KEY) =>
  server.request(path, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
const codeOf = async (answer: Promise<Response>) => {
  const body = (await (await answer).json()) as { code?: string; status?: number };
  return body.code;
};
const sum = (more: object = {}) => ({
  slug: 'sum_tokens',
  eventType: 'prompt',
  aggregation: 'SUM',
  valueProperty: '$.tokens',
  ...more,
});

test("OpenMeter's published client creates, gets, lists, changes and deletes a meter unchanged", async () => {
  const created = await client.meters.create({
    slug: 'prompt_tokens',
    aggregation: 'SUM',
    eventType: 'prompt',
    valueProperty: '$.usage.input_tokens',
    groupBy: { model: '$.model', region: "$['cloud.region']" },
    metadata: { team: 'core' },
  });
  expect(created).toMatchObject({
    slug: 'prompt_tokens',
    name: 'prompt_tokens',
    valueProperty: '$.usage.input_tokens',
    groupBy: { model: '$.model', region: '$.cloud.region' },
    metadata: { team: 'core' },
  });
  expect(created?.createdAt).toBeInstanceOf(Date);
  expect(await client.meters.get('prompt_tokens')).toEqual(created);
  expect(await client.meters.get(created?.id ?? '')).toEqual(created);
  expect((await client.meters.list())?.map((meter) => meter.slug)).toContain('prompt_tokens');
  const changed = await client.meters.update('prompt_tokens', { name: 'Prompt tokens', groupBy: { model: '$.model' } });
  // The old version answers until the new one has counted the past.
  expect(changed).toMatchObject({ name: 'Prompt tokens', metadata: { team: 'core' }, changing: true });
  await client.meters.delete('prompt_tokens');
  await expect(client.meters.get('prompt_tokens')).rejects.toMatchObject({ status: 404 });
  expect((await send('POST', '/api/v1/meters', sum({ slug: 'prompt_tokens' }))).status).toBe(201);
});

test('P6: every wrong definition is refused with its own code', async () => {
  expect((await send('POST', '/api/v1/meters', sum())).status).toBe(201);
  for (const [body, code] of [
    [sum(), 'slug_in_use'],
    [sum({ slug: 'tokens' }), 'slug_in_use'],
    [sum({ slug: 'No-Slug' }), 'invalid_body'],
    [sum({ slug: 'a', valueProperty: undefined }), 'value_property_missing'],
    [sum({ slug: 'a', aggregation: 'COUNT' }), 'value_property_unexpected'],
    [sum({ slug: 'a', quantile: 0.5 }), 'quantile_unexpected'],
    [sum({ slug: 'a', aggregation: 'PERCENTILE', quantile: 1.5 }), 'invalid_meter'],
    [sum({ slug: 'a', aggregation: 'MEDIAN' }), 'invalid_meter'],
    [sum({ slug: 'a', eventFrom: 'yesterday' }), 'invalid_meter'],
    [sum({ slug: 'a', valueKind: 'delta' }), 'invalid_meter'],
    [sum({ slug: 'a', groupBy: { subject: '$.s' } }), 'invalid_meter'],
    [sum({ slug: 'a', filters: [{ property: '$.x', op: 'like', value: 'a' }] }), 'invalid_filter'],
    [sum({ slug: 'a', filters: [{ property: '$.x', op: 'gt', value: 'a' }] }), 'invalid_filter'],
    [sum({ slug: 'a', filters: [{ property: '$.x', op: 'in', value: [] }] }), 'invalid_filter'],
    [sum({ slug: 'a', tenant: 'nobody' }), 'not_found'],
    ...[
      '$',
      'tokens',
      '$..tokens',
      '$.*',
      '$.a[0]',
      '$[?(@.a>1)]',
      "$['a'",
      '$.a; DROP TABLE meters',
      "$['__proto__']",
      "$['a\u0000']",
    ].map((path) => [sum({ slug: 'a', valueProperty: path }), 'invalid_json_path'] as const),
    [sum({ slug: 'a', groupBy: { model: '$.models[*]' } }), 'invalid_json_path'],
  ] as const)
    expect([body, await codeOf(send('POST', '/api/v1/meters', body))]).toEqual([body, code]);
  expect(await codeOf(send('PUT', '/api/v1/meters/tokens', { name: 'x' }))).toBe('meter_builtin');
  expect(await codeOf(send('DELETE', '/api/v1/meters/tokens'))).toBe('meter_builtin');
  expect(await codeOf(send('DELETE', '/api/v1/meters/nothing'))).toBe('unknown_meter');
});

test("P7: a tenant's meter is its own and the platform's; a meter for everybody is the platform's to change", async () => {
  const tenant = async (slug: string) => {
    const answer = await send('POST', '/api/v1/tenants', { slug, name: slug });
    expect(answer.status).toBe(201);
    const key = (await (await send('POST', '/api/v1/keys', { tenant: slug, scopes: ['read', 'admin'] })).json()) as {
      secret: string;
    };
    return key.secret;
  };
  const [mine, other] = [await tenant('mine'), await tenant('other')];
  const created = await send('POST', '/api/v1/meters', sum({ slug: 'own_meter' }), mine);
  expect(await created.json()).toMatchObject({ slug: 'own_meter', tenant: 'mine' });
  expect(await codeOf(send('GET', '/api/v1/meters/own_meter', undefined, other))).toBe('unknown_meter');
  expect(await codeOf(send('GET', '/api/v1/meters/own_meter/query', undefined, other))).toBe('unknown_meter');
  expect(await codeOf(send('DELETE', '/api/v1/meters/own_meter', undefined, other))).toBe('unknown_meter');
  expect(await codeOf(send('DELETE', '/api/v1/meters/sum_tokens', undefined, mine))).toBe('forbidden');
  expect(await codeOf(send('POST', '/api/v1/meters', sum({ slug: 'theirs', tenant: 'other' }), mine))).toBe(
    'not_found',
  );
  expect((await send('DELETE', '/api/v1/meters/own_meter')).status).toBe(204);
});
