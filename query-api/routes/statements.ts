import { Readable } from 'node:stream';
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import { type Static, Type } from 'typebox';
import {
  CLOSE_JOB,
  CSV_HEADER,
  csvRow,
  type Draft,
  draftStatements,
  type ExportedLine,
  exportLines,
  findStatement,
  listStatements,
  loadSubscriptions,
  readLines,
  replayStatement,
  type StatementLine,
  type StoredStatement,
  serialOf,
  statementPage,
  voidStatement,
} from '../../billing/index.ts';
import { type Principal, TidemarkError } from '../../schemas/index.ts';
import { fromCursor, limitOf, listOf, requirePlatform, tenantsOf, timeOf, toCursor, UUID } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Filter = Type.Object({
  tenant: Type.Optional(Type.String()),
  subscription: Type.Optional(Type.String()),
  status: Type.Optional(Type.String({ description: 'closed, void or draft; default closed and void' })),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
});
const Format = Type.Object({
  format: Type.Optional(Type.String({ description: 'json, csv, html; default by Accept' })),
});
const DraftFilter = Type.Object({
  tenant: Type.Optional(Type.String()),
  subscription: Type.Optional(Type.String()),
  at: Type.Optional(Type.String({ description: 'of the period that holds this time; default: the first open one' })),
  format: Type.Optional(Type.String()),
});
/** The body may be left out. */
const Close = Type.Unsafe<{ ended_before?: string } | null>({
  ...Type.Object(
    {
      ended_before: Type.Optional(
        Type.String({ description: 'ISO 8601; default: now less the grace time (BILLING_GRACE_HOURS)' }),
      ),
    },
    { additionalProperties: false },
  ),
  type: ['object', 'null'],
});
const Void = Type.Object(
  {
    reason: Type.String({
      minLength: 1,
      maxLength: 1000,
      pattern: '^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f]+$',
    }),
    reissue: Type.Optional(Type.Boolean({ description: 'issue the period anew from what is metered now' })),
  },
  { additionalProperties: false },
);
const Lines = Type.Object({
  tenant: Type.Optional(Type.String()),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
  format: Type.Optional(Type.String()),
});
const MOST_DRAFTS = 100;

/** Statements: closed ones, drafts, replays, lines for other systems. */
export const statementRoutes: FastifyPluginAsync<QueryOptions> = async (app, options) => {
  const { pool, directory, jobs, billing, now } = options;
  const deps = { ...billing, pool, now };

  app.get(
    '/api/v1/statements',
    { schema: { tags: ['billing'], summary: 'Closed statements, newest first', querystring: Filter } },
    async (request) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      if (parameters.status === 'draft') return presentDrafts(await draftsOf(principal, parameters));
      const limit = limitOf(parameters.limit, 100, 1000);
      const before = Number(fromCursor(parameters.cursor, ['int'])?.[0] ?? 0) || null;
      const tenants = await tenantsOf(principal, directory, listOf(parameters.tenant));
      const found = await listStatements(pool, {
        tenantIds: tenants?.map((tenant) => tenant.id) ?? null,
        subscription: subscriptionOf(parameters.subscription) ?? null,
        status: statusOf(parameters.status),
        before,
        limit: limit + 1,
      });
      return {
        data: found.slice(0, limit).map(summary),
        next: found.length > limit ? toCursor([found[limit - 1]?.serial ?? 0]) : null,
      };
    },
  );

  app.get(
    '/api/v1/statements/drafts',
    { schema: { tags: ['billing'], summary: 'Running statements, as of now', querystring: DraftFilter } },
    async (request, reply) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const drafts = await draftsOf(principal, parameters);
      if (formatOf(request, parameters.format) === 'html' && drafts[0] !== undefined)
        return page(reply, statementPage(drafts[0].head, drafts[0].lines, null));
      return presentDrafts(drafts);
    },
  );

  app.get(
    '/api/v1/statements/:number',
    { schema: { tags: ['billing'], summary: 'A statement as JSON, CSV or a printable page', querystring: Format } },
    async (request, reply) => {
      const statement = await find(request, await request.authorize('read'));
      const format = formatOf(request, (request.query as Record<string, unknown>).format);
      if (format === 'html') return page(reply, statementPage(statement.head, parsed(statement.serial), statement));
      if (format === 'csv') return csv(reply, csvOf(statement));
      return reply.type('application/json').send(Readable.from(jsonOf(statement), { objectMode: false }));
    },
  );

  app.post<{ Body: Static<typeof Close> }>(
    '/api/v1/statements/close',
    { schema: { tags: ['billing'], summary: 'Close what has ended, now; the job does it by itself too', body: Close } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { ended_before: before } = request.body ?? {};
      const time = timeOf('ended_before', before);
      const run = await jobs.request(
        CLOSE_JOB,
        time === undefined ? {} : { ended_before: new Date(time).toISOString() },
      );
      return reply.code(202).send({ job: run.id });
    },
  );

  app.post(
    '/api/v1/statements/:number/replay',
    { schema: { tags: ['billing'], summary: 'Recompute a statement from raw events and compare byte for byte' } },
    async (request) => {
      const statement = await find(request, await request.authorize('read'));
      return replayStatement(deps, statement.serial);
    },
  );

  app.post<{ Body: Static<typeof Void> }>(
    '/api/v1/statements/:number/void',
    { schema: { tags: ['billing'], summary: 'Make a statement void, and issue its period anew if asked', body: Void } },
    async (request) => {
      const principal = await request.authorize('admin');
      requirePlatform(principal);
      const statement = await find(request, principal);
      const { reason, reissue } = request.body;
      await voidStatement(deps, statement.serial, { reason, reissue: reissue ?? false });
      return summary(await find(request, principal));
    },
  );

  app.get(
    '/api/v1/statement-lines',
    {
      schema: {
        tags: ['billing'],
        summary: 'Lines of closed statements for other systems: append-only, each once with its cursor; ids are stable',
        querystring: Lines,
      },
    },
    async (request, reply) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 1000, 10_000);
      const [serial, line] = fromCursor(parameters.cursor, ['int', 'int']) ?? [0, 0];
      const tenants = await tenantsOf(principal, directory, listOf(parameters.tenant));
      const lines = await exportLines(pool, {
        tenantIds: tenants?.map((tenant) => tenant.id) ?? null,
        after: { serial: Number(serial), line: Number(line) },
        limit,
      });
      const last = lines.at(-1);
      // Also at the end: the next call goes on with what is closed after this one.
      const next =
        last === undefined ? toCursor([serial ?? 0, line ?? 0]) : toCursor([serialOf(last.statement) ?? 0, last.line]);
      if (formatOf(request, parameters.format) === 'csv') {
        reply.header('x-next-cursor', next);
        return csv(reply, [CSV_HEADER, ...lines.map(csvRow)]);
      }
      return { data: lines, next, more: lines.length === limit };
    },
  );

  async function draftsOf(principal: Principal, parameters: Record<string, unknown>): Promise<Draft[]> {
    const id = subscriptionOf(parameters.subscription);
    const tenants = await tenantsOf(principal, directory, listOf(parameters.tenant));
    const tenantIds = tenants?.map((tenant) => tenant.id) ?? null;
    const found =
      id === undefined
        ? await loadSubscriptions(pool, { tenantIds, after: '', limit: MOST_DRAFTS })
        : await loadSubscriptions(pool, { ids: [id] });
    const own = found.filter((one) => tenantIds === null || tenantIds.includes(one.tenantId));
    return draftStatements(deps, own, timeOf('at', parameters.at));
  }

  async function find(request: FastifyRequest, principal: Principal): Promise<StoredStatement> {
    const { number } = request.params as { number: string };
    const serial = serialOf(number);
    const found = serial === undefined ? undefined : await findStatement(pool, serial);
    if (found === undefined || (principal.tenant !== null && principal.tenant.id !== found.head.tenant_id))
      throw new TidemarkError('not_found', `there is no statement ${number}`);
    return found;
  }

  async function* parsed(serial: number): AsyncGenerator<StatementLine & { line: number }> {
    for await (const line of readLines(pool, serial)) yield JSON.parse(line);
  }

  /** The document that was hashed, with `checksum`, `status` and `void` beside. */
  async function* jsonOf(statement: StoredStatement): AsyncGenerator<string> {
    const more = { checksum: statement.checksum, status: statusText(statement), void: statement.void };
    yield `${statement.headText.slice(0, -1)},${JSON.stringify(more).slice(1, -1)},"lines":[`;
    let between = '';
    for await (const line of readLines(pool, statement.serial)) {
      yield `${between}${line}`;
      between = ',';
    }
    yield ']}';
  }

  async function* csvOf({ head, serial, void: voided }: StoredStatement): AsyncGenerator<string> {
    yield CSV_HEADER;
    for await (const line of parsed(serial)) {
      const row: ExportedLine = {
        ...line,
        id: `${head.number}/${line.line}`,
        statement: head.number ?? '',
        tenant: head.tenant,
        subscription: head.subscription,
        currency: head.currency,
        void: voided !== null,
      };
      yield csvRow(row);
    }
  }
};

const presentDrafts = (drafts: readonly Draft[]) => ({
  data: drafts.map(({ head, lines }) => ({ ...head, status: 'draft', lines })),
  next: null,
});
const statusText = (statement: StoredStatement) => (statement.void === null ? 'closed' : 'void');

function summary(statement: StoredStatement) {
  const { positions: _positions, ...head } = statement.head;
  return { ...head, status: statusText(statement), void: statement.void, checksum: statement.checksum };
}

function subscriptionOf(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const id = String(value);
  if (!UUID.test(id)) throw new TidemarkError('not_found', `there is no subscription ${id}`);
  return id;
}

function statusOf(value: unknown): 'closed' | 'void' | null {
  if (value === undefined) return null;
  if (value !== 'closed' && value !== 'void')
    throw new TidemarkError('invalid_parameter', 'status must be closed, void or draft');
  return value;
}

function formatOf(request: FastifyRequest, given: unknown): 'json' | 'csv' | 'html' {
  if (given !== undefined) {
    const format = (['json', 'csv', 'html'] as const).find((one) => one === given);
    if (format === undefined) throw new TidemarkError('invalid_parameter', 'format must be json, csv or html');
    return format;
  }
  const accept = String(request.headers.accept ?? '');
  return accept.includes('text/html') ? 'html' : accept.includes('text/csv') ? 'csv' : 'json';
}

/** The page brings its own style and nothing else: no script runs in it. */
const page = (reply: FastifyReply, pieces: AsyncIterable<string>) =>
  reply
    .type('text/html; charset=utf-8')
    .header(
      'content-security-policy',
      "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    )
    .send(Readable.from(pieces, { objectMode: false }));
const csv = (reply: FastifyReply, pieces: AsyncIterable<string> | Iterable<string>) =>
  reply.type('text/csv; charset=utf-8').send(Readable.from(pieces, { objectMode: false }));
