import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { readDefinition } from '../../metering/index.ts';
import { type MeterEntry, type Principal, TidemarkError } from '../../schemas/index.ts';
import { tenantsOf } from '../access.ts';
import { changeMeter, createMeter, deleteMeter } from '../meters/definitions.ts';
import { isVisible, presentMeter } from '../meters/present.ts';
import type { QueryOptions } from '../options.ts';

const Printable = { pattern: '^[^\\u0000-\\u001f\\u007f]+$' };
const Names = {
  name: Type.Optional(Type.String({ minLength: 1, maxLength: 256, ...Printable })),
  description: Type.Optional(Type.String({ maxLength: 1024, pattern: '^[^\\u0000]*$' })),
  metadata: Type.Optional(
    Type.Union([Type.Null(), Type.Record(Type.String(), Type.String({ maxLength: 1024, pattern: '^[^\\u0000]*$' }))]),
  ),
};
const Filter = Type.Object({ property: Type.String(), op: Type.String(), value: Type.Optional(Type.Unknown()) });
const Definition = {
  eventType: Type.String({ description: 'type of the events that it counts; `*`: every type' }),
  aggregation: Type.String({
    description: 'COUNT, SUM, MIN, MAX, AVG, UNIQUE_COUNT, LATEST, PERCENTILE, PEAK or TIME_WEIGHTED_AVG',
  }),
  valueProperty: Type.Optional(Type.String({ description: 'JSONPath, as `$.tokens`; all but COUNT need it' })),
  valueKind: Type.Optional(
    Type.String({ description: 'of PEAK and TIME_WEIGHTED_AVG: `gauge` (a level) or `delta` (a change of it)' }),
  ),
  quantile: Type.Optional(Type.Number({ description: 'of PERCENTILE; default 0.95' })),
  eventFrom: Type.Optional(Type.String({ description: 'ISO 8601; earlier events are not counted' })),
  groupBy: Type.Optional(Type.Record(Type.String(), Type.String({ description: 'JSONPath' }))),
  filters: Type.Optional(Type.Array(Filter, { description: 'all must hold' })),
};
const NewMeter = Type.Object({
  slug: Type.String({ minLength: 1, maxLength: 64, pattern: '^[a-z0-9]+(?:_[a-z0-9]+)*$' }),
  tenant: Type.Optional(Type.String({ maxLength: 128, description: 'the only tenant that it counts; absent: all' })),
  ...Names,
  ...Definition,
});
const ChangedMeter = Type.Partial(Type.Object({ ...Names, ...Definition }));

const OVERFLOWS = `
  SELECT o.meter_id, t.customer_id AS subject, sum(o.folded)::float8 AS folded, min(o.first_at) AS first_at, max(o.last_at) AS last_at
  FROM meter_overflows AS o JOIN tenants AS t ON t.id = o.tenant_id
  WHERE $1::uuid IS NULL OR o.tenant_id = $1 GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 10000`;

/** Meters: list, get, create, change, delete, in OpenMeter's v1 shape. */
export const meterDefinitionRoutes: FastifyPluginAsync<QueryOptions> = async (app, options) => {
  const { pool, directory, catalogue, jobs } = options;

  app.get('/api/v1/meters', { schema: { tags: ['meters'], summary: 'List meters' } }, async (request) => {
    const principal = await request.authorize('read');
    const entries = (await catalogue.list()).filter((entry) => isVisible(entry.meter, principal));
    return Promise.all(entries.map(present));
  });

  app.get('/api/v1/meters/:slug', { schema: { tags: ['meters'], summary: 'One meter' } }, async (request) => {
    const principal = await request.authorize('read');
    return present(await meterOf(request.params, principal));
  });

  app.post<{ Body: Static<typeof NewMeter> }>(
    '/api/v1/meters',
    { schema: { tags: ['meters'], summary: 'Create a meter; the past is counted by a job', body: NewMeter } },
    async (request, reply) => {
      const principal = await request.authorize('admin');
      const { slug, tenant, name, description, metadata } = request.body;
      const definition = readDefinition(request.body);
      const [scope] = (await tenantsOf(principal, directory, tenant === undefined ? [] : [tenant])) ?? [];
      if ((await catalogue.find(slug))?.builtin === true)
        throw new TidemarkError('slug_in_use', `${slug} is a built-in meter`);
      const key = await createMeter(pool, {
        slug,
        tenantId: scope?.id ?? null,
        name: name ?? slug,
        description: description ?? '',
        metadata: metadata ?? null,
        definition,
      });
      await askForBackfill(slug);
      return reply.code(201).send(await present(await known(key)));
    },
  );

  app.put<{ Body: Static<typeof ChangedMeter> }>(
    '/api/v1/meters/:slug',
    { schema: { tags: ['meters'], summary: 'Change a meter', body: ChangedMeter } },
    async (request) => {
      const principal = await request.authorize('admin');
      const entry = await writable(request.params, principal);
      const { name, description, metadata } = request.body;
      // What is not sent stays as it is, in the form in which it is sent.
      const now = presentMeter({ ...entry, meter: entry.next ?? entry.meter }, null);
      const definition = readDefinition({ ...now, ...request.body });
      await changeMeter(pool, entry, { name, description, metadata, definition });
      await askForBackfill(entry.meter.slug);
      return present(await known(entry.key));
    },
  );

  app.delete(
    '/api/v1/meters/:slug',
    { schema: { tags: ['meters'], summary: 'Delete a meter and what it has counted' } },
    async (request, reply) => {
      const principal = await request.authorize('admin');
      const entry = await writable(request.params, principal);
      await deleteMeter(pool, entry.key);
      catalogue.forget();
      return reply.code(204).send();
    },
  );

  app.get(
    '/api/v1/meter-overflows',
    { schema: { tags: ['meters'], summary: 'Meters and tenants with more groups than METER_GROUPS_MAX' } },
    async (request) => {
      const principal = await request.authorize('read');
      const { rows } = await pool.query<{ meter_id: number; [column: string]: unknown }>(OVERFLOWS, [
        principal.tenant?.id ?? null,
      ]);
      const slugs = new Map<number, string>();
      for (const { meter, next } of await catalogue.list())
        for (const version of [meter, next]) if (version !== null) slugs.set(version.id, version.slug);
      const data = rows.flatMap(({ meter_id: id, ...row }) => {
        const meter = slugs.get(id);
        return meter === undefined ? [] : [{ meter, ...row }];
      });
      return { data, next: null };
    },
  );

  async function meterOf(params: unknown, principal: Principal): Promise<MeterEntry> {
    const { slug } = params as { slug: string };
    const entry = await catalogue.find(slug);
    if (entry === undefined || !isVisible(entry.meter, principal))
      throw new TidemarkError('unknown_meter', `there is no meter ${slug}`);
    return entry;
  }

  /** A tenant's key changes its own meters; those for everybody answer it as all it may not change. */
  async function writable(params: unknown, principal: Principal): Promise<MeterEntry> {
    const entry = await meterOf(params, principal);
    if (entry.builtin) throw new TidemarkError('meter_builtin', `${entry.meter.slug} is built in`);
    if (principal.tenant !== null && entry.meter.tenantId !== principal.tenant.id)
      throw new TidemarkError('forbidden', `${entry.meter.slug} is for every tenant: this needs a platform key`);
    return entry;
  }

  async function known(key: string): Promise<MeterEntry> {
    catalogue.forget();
    const entry = await catalogue.find(key);
    if (entry === undefined) throw new TidemarkError('unknown_meter', 'the meter was deleted meanwhile');
    return entry;
  }

  /** The schedule would come to it too, minutes later. */
  async function askForBackfill(meter: string): Promise<void> {
    // A run that is about to end would not see this change: other params make it another run.
    await jobs.request('meter_backfill', { meter, at: new Date(options.now()).toISOString() });
  }

  async function present(entry: MeterEntry) {
    const { tenantId } = entry.meter;
    const tenant = tenantId === undefined ? undefined : await directory.find(tenantId);
    return presentMeter(entry, tenant?.customerId ?? null);
  }
};
