import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { type Principal, TidemarkError } from '../../schemas/index.ts';
import { fromCursor, limitOf, requirePlatform, tenantsOf, toCursor } from '../access.ts';
import type { QueryOptions } from '../options.ts';
import { deleteSubject, findSubject, listSubjects, upsertSubjects } from '../subjects.ts';

const Printable = { pattern: '^[^\\u0000-\\u001f\\u007f]+$' };
const Text = Type.Union([Type.Null(), Type.String({ maxLength: 256, ...Printable })]);
const Subject = Type.Object({
  key: Type.String({ minLength: 1, maxLength: 128, ...Printable }),
  displayName: Type.Optional(Text),
  metadata: Type.Optional(Type.Union([Type.Null(), Type.Record(Type.String(), Type.Unknown())])),
  stripeCustomerId: Type.Optional(Text),
  currentPeriodStart: Type.Optional(Type.String({ format: 'date-time' })),
  currentPeriodEnd: Type.Optional(Type.String({ format: 'date-time' })),
});
const Subjects = Type.Array(Subject, { minItems: 1, maxItems: 1_000 });
const Page = Type.Object({ limit: Type.Optional(Type.String()), cursor: Type.Optional(Type.String()) });
const MOST = 10_000;

/** OpenMeter's subjects. */
export const subjectRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory }) => {
  app.get(
    '/api/v1/subjects',
    { schema: { tags: ['subjects'], summary: "Subjects, in OpenMeter's shape", querystring: Page } },
    async (request, reply) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, MOST, MOST);
      const after = String(fromCursor(parameters.cursor, ['string'])?.[0] ?? '');
      const found = await listSubjects(pool, after, limit + 1, principal.tenant?.id ?? null);
      const page = found.slice(0, limit);
      const last = page.at(-1);
      if (found.length > limit && last !== undefined)
        reply.header('link', `</api/v1/subjects?limit=${limit}&cursor=${toCursor([last.key])}>; rel="next"`);
      return page;
    },
  );

  app.get(
    '/api/v1/subjects/:ref',
    { schema: { tags: ['subjects'], summary: 'One subject, by id or key' } },
    async (request) => {
      const principal = await request.authorize('read');
      const subject = await findSubject(pool, await idOf(request.params, principal));
      if (subject === undefined) throw new TidemarkError('not_found', 'the subject was deleted');
      return subject;
    },
  );

  app.post<{ Body: Static<typeof Subjects> }>(
    '/api/v1/subjects',
    { schema: { tags: ['subjects'], summary: 'Create or change subjects', body: Subjects } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const keys = new Set(request.body.map((subject) => subject.key));
      if (keys.size < request.body.length) throw new TidemarkError('invalid_body', 'a key stands twice');
      if (JSON.stringify(request.body).includes('\\u0000'))
        throw new TidemarkError('invalid_body', 'NUL is in no text');
      return upsertSubjects(pool, request.body);
    },
  );

  app.delete(
    '/api/v1/subjects/:ref',
    { schema: { tags: ['subjects'], summary: 'No longer list a subject; its usage stays' } },
    async (request, reply) => {
      const principal = await request.authorize('admin');
      requirePlatform(principal);
      await deleteSubject(pool, await idOf(request.params, principal));
      return reply.code(204).send();
    },
  );

  async function idOf(params: unknown, principal: Principal): Promise<string> {
    const { ref } = params as { ref: string };
    const [tenant] = (await tenantsOf(principal, directory, [ref])) ?? [];
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no subject ${ref}`);
    return tenant.id;
  }
};
