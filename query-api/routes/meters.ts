import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { isZone, WINDOW_SIZES, type WindowSize } from '../../metering/index.ts';
import { type Meter, type Principal, TidemarkError } from '../../schemas/index.ts';
import { listOf, tenantsOf, timeOf } from '../access.ts';
import { isVisible } from '../meters/present.ts';
import { type MeterQuery, type MeterResult, runMeterQuery } from '../meters/run-query.ts';
import type { QueryOptions } from '../options.ts';

declare global {
  interface JSON {
    /** TC39 proposal-json-parse-with-source: a literal that stringify writes as it is. */
    rawJSON(text: string): unknown;
  }
}

const EXACT = 'application/vnd.tidemark+json';
const Strings = Type.Union([Type.String(), Type.Array(Type.String())]);
const QueryParameters = Type.Object({
  from: Type.Optional(Type.String({ description: 'ISO 8601, whole minute; default: the first minute with data' })),
  to: Type.Optional(Type.String({ description: 'ISO 8601, whole minute, exclusive' })),
  windowSize: Type.Optional(Type.String({ description: WINDOW_SIZES.join(', ') })),
  windowTimeZone: Type.Optional(Type.String({ description: 'IANA time zone; default UTC' })),
  subject: Type.Optional(Strings),
  groupBy: Type.Optional(Strings),
  filterGroupBy: Type.Optional(Type.Unknown({ description: 'filterGroupBy[endpoint]=/x, repeatable' })),
  quantile: Type.Optional(Type.String({ description: 'of a PERCENTILE meter; default 0.95' })),
  empty: Type.Optional(Type.String({ description: '`zero`: windows without data are zero' })),
});

/** The OpenMeter v1 contract for reading meters, with percentiles beside. */
export const meterRoutes: FastifyPluginAsync<QueryOptions> = async (app, options) => {
  const { pool, directory, catalogue } = options;

  app.get(
    '/api/v1/meters/:slug/query',
    { schema: { tags: ['meters'], summary: 'Query a meter', querystring: QueryParameters } },
    async (request, reply) => {
      const principal = await request.authorize('read');
      const query = await parse(request, principal);
      return answer(request, reply, query, await runMeterQuery(pool, query));
    },
  );

  app.get(
    '/api/v1/meters/:slug/subjects',
    { schema: { tags: ['meters'], summary: 'Subjects of a meter' } },
    async (request) => {
      const principal = await request.authorize('read');
      const meter = await meterOf(request, principal);
      const tenants = await tenantsOf(principal, directory, []);
      const table = meter.aggregation === 'UNIQUE_COUNT' ? 'members_hour' : 'rollup_groups';
      const { rows } = await pool.query<{ customer_id: string }>(
        `SELECT customer_id FROM tenants AS t WHERE ($2::uuid[] IS NULL OR id = ANY ($2)) AND EXISTS (SELECT FROM ${table} WHERE tenant_id = t.id AND meter_id = $1) ORDER BY 1`,
        [meter.id, tenants?.map((tenant) => tenant.id) ?? null],
      );
      return rows.map((row) => row.customer_id);
    },
  );

  async function meterOf(request: FastifyRequest, principal: Principal): Promise<Meter> {
    const { slug } = request.params as { slug: string };
    const entry = await catalogue.find(slug);
    if (entry === undefined || !isVisible(entry.meter, principal))
      throw new TidemarkError('unknown_meter', `there is no meter ${slug}`);
    return entry.meter;
  }

  async function parse(request: FastifyRequest, principal: Principal): Promise<MeterQuery> {
    const meter = await meterOf(request, principal);
    const parameters = request.query as Record<string, unknown>;
    const windowSize = windowSizeOf(parameters.windowSize);
    const windowTimeZone = String(parameters.windowTimeZone ?? 'UTC');
    if (!isZone(windowTimeZone))
      throw new TidemarkError('invalid_parameter', `windowTimeZone "${windowTimeZone}" is no IANA time zone`);
    const names = listOf(parameters.groupBy).flatMap((name) => name.split(','));
    const groupBy = [...new Set(names.filter((name) => name !== 'subject'))];
    const filters = filtersOf(parameters);
    for (const name of [...groupBy, ...filters.keys()])
      if (!meter.groupBy.includes(name))
        throw new TidemarkError(
          'unknown_group',
          `${meter.slug} has no group-by "${name}"; it has ${['subject', ...meter.groupBy].join(', ')}`,
        );
    const quantile = Number(parameters.quantile ?? meter.quantile ?? 0.95);
    if (!(quantile >= 0 && quantile <= 1)) throw new TidemarkError('invalid_parameter', 'quantile must be from 0 to 1');
    if (parameters.quantile !== undefined && meter.aggregation !== 'PERCENTILE')
      throw new TidemarkError('invalid_parameter', `${meter.slug} is a ${meter.aggregation}: it has no quantiles`);
    if (parameters.empty !== undefined && parameters.empty !== 'zero')
      throw new TidemarkError('invalid_parameter', 'empty must be "zero"');
    const tenants = await tenantsOf(principal, directory, listOf(parameters.subject));
    return {
      meter,
      tenantIds: tenants?.map((tenant) => tenant.id) ?? null,
      from: timeOf('from', parameters.from),
      to: timeOf('to', parameters.to),
      windowSize,
      windowTimeZone,
      bySubject: names.includes('subject') || listOf(parameters.subject).length > 0,
      groupBy,
      filters,
      quantile,
      fillEmpty: parameters.empty === 'zero',
    };
  }
};

function windowSizeOf(value: unknown): WindowSize | undefined {
  if (value === undefined) return undefined;
  const size = WINDOW_SIZES.find((one) => one === value);
  if (size === undefined)
    throw new TidemarkError('invalid_parameter', `windowSize must be one of ${WINDOW_SIZES.join(', ')}`);
  return size;
}

/** `filterGroupBy[name]=value` (deep object, as the client sends it), repeatable; or a JSON object. */
function filtersOf(parameters: Record<string, unknown>): Map<string, string[]> {
  const filters = new Map<string, string[]>();
  for (const [key, value] of Object.entries(parameters)) {
    const name = /^filterGroupBy\[([^\]]+)\](?:\[\d*\])?$/.exec(key)?.[1];
    if (name !== undefined) filters.set(name, [...(filters.get(name) ?? []), ...listOf(value)]);
  }
  return filters;
}

const iso = (ms: number): string => new Date(ms).toISOString();

function answer(request: FastifyRequest, reply: FastifyReply, query: MeterQuery, result: MeterResult): FastifyReply {
  const accept = String(request.headers.accept ?? '');
  if (accept.includes('text/csv')) return reply.type('text/csv; charset=utf-8').send(toCsv(query, result));
  const exact = accept.includes(EXACT);
  const body = {
    ...(result.from === undefined ? {} : { from: iso(result.from) }),
    ...(result.to === undefined ? {} : { to: iso(result.to) }),
    ...(query.windowSize === undefined ? {} : { windowSize: query.windowSize }),
    data: result.rows.map((row) => ({
      // A JSON number with every digit it has, or the same as a string.
      value: exact ? row.value : JSON.rawJSON(row.value),
      windowStart: iso(row.windowStart),
      windowEnd: iso(row.windowEnd),
      subject: row.subject,
      groupBy: row.groupBy,
      ...(row.quantiles === undefined ? {} : { quantiles: row.quantiles }),
    })),
  };
  return reply.type(exact ? EXACT : 'application/json').send(Buffer.from(JSON.stringify(body)));
}

function toCsv(query: MeterQuery, result: MeterResult): string {
  const header = ['window_start', 'window_end', ...(query.bySubject ? ['subject'] : []), ...query.groupBy, 'value'];
  const lines = result.rows.map((row) =>
    [
      iso(row.windowStart),
      iso(row.windowEnd),
      ...(query.bySubject ? [row.subject] : []),
      ...query.groupBy.map((name) => row.groupBy[name]),
      row.value,
    ]
      .map((cell) => csvCell(cell ?? ''))
      .join(','),
  );
  return `${[header.map(csvCell).join(','), ...lines].join('\r\n')}\r\n`;
}

/** RFC 4180; a leading =, +, -, @ of a text is no formula: it gets a quote mark before it, numbers stay. */
function csvCell(cell: string): string {
  const safe = /^[=+\-@\t\r]/.test(cell) && !/^-?\d+(\.\d+)?$/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
