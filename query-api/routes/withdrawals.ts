import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyPluginAsync, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import {
  ACTOR,
  claimKeyOf,
  EVENT_AT,
  encodeEvent,
  LIMITS,
  REASON,
  type Tenant,
  TidemarkError,
  VOID_TYPE,
} from '../../schemas/index.ts';
import { LogUnavailable, watchCommits } from '../../sinks/index.ts';
import { dayOf } from '../../tiering/index.ts';
import { fromCursor, limitOf, listOf, tenantsOf, toCursor } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Parameters = Type.Object({
  subject: Type.Optional(Type.String({ description: 'whose event it is; needed where two tenants have the same id' })),
  source: Type.Optional(
    Type.String({ description: "the CloudEvent's source; needed where two sources have the same id" }),
  ),
  reason: Type.Optional(Type.String({ maxLength: 512, description: 'why; stands in the audit row' })),
});
const Reason = Type.Union([Type.Null(), Type.Object({ reason: Type.Optional(Type.String({ maxLength: 512 })) })]);
const Page = Type.Object({
  subject: Type.Optional(Type.Union([Type.String(), Type.Array(Type.String())])),
  id: Type.Optional(Type.String()),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
});

/** How long a void waits for its event to be committed before it is said not to exist. */
const PATIENCE_MS = 5_000;
const LOOK_MS = 50;
/** Archived events of one id, of other sources too, that are looked at. */
const MOST_FOUND = 100;

const FIND = `
  SELECT t.customer_id, e.source, e.keyed_by_source, o.topic, o.partition, (extract(epoch FROM e."timestamp") * 1000)::float8 AS at
  FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id JOIN log_offsets AS o ON o.shard = e.shard
  WHERE e.type <> '${VOID_TYPE}' AND e.idempotency_key = $1 AND ($2::uuid[] IS NULL OR e.tenant_id = ANY ($2))
    AND ($3::text IS NULL OR e.source = $3) AND ($4::uuid[] IS NULL OR e.key = ANY ($4)) LIMIT 2`;
const LIST = `
  SELECT w.shard, w.log_offset::float8 AS log_offset, w.action, t.customer_id AS subject, w.idempotency_key AS id, w.source,
    w.event_at, w.actor, w.reason, w.created_at, (extract(epoch FROM w.created_at) * 1000000)::float8 AS at
  FROM withdrawals AS w JOIN tenants AS t ON t.id = w.tenant_id
  WHERE ($1::uuid[] IS NULL OR w.tenant_id = ANY ($1)) AND ($2::text IS NULL OR w.idempotency_key = $2)
    AND ($3::float8 IS NULL OR (extract(epoch FROM w.created_at) * 1000000, w.shard, w.log_offset) < ($3, $4, $5))
  ORDER BY w.created_at DESC, w.shard DESC, w.log_offset DESC LIMIT $6`;

interface EventPlace {
  customer_id: string;
  source: string | null;
  keyed_by_source: boolean;
  topic: string;
  partition: number;
  at: number;
}

/** Voiding events, and who has withdrawn which. */
export const withdrawalRoutes: FastifyPluginAsync<QueryOptions> = async (app, options) => {
  const { pool, log, directory, archive, now } = options;

  app.delete(
    '/api/v1/events/:id',
    {
      schema: {
        tags: ['events'],
        summary: 'Void an event: it counts no more, in no meter',
        querystring: Parameters,
        body: Reason,
      },
    },
    async (request, reply) => {
      const principal = await request.authorize('admin');
      const { id } = request.params as { id: string };
      const {
        subject,
        source,
        reason: inQuery,
      } = request.query as { subject?: string; source?: string; reason?: string };
      const body = request.body as { reason?: string } | null | undefined;
      const reason = body?.reason ?? inQuery ?? null;
      for (const text of [id, source ?? '', reason ?? ''])
        if (text.includes('\0') || !text.isWellFormed() || Buffer.byteLength(text) > LIMITS.idempotencyKey)
          throw new TidemarkError('invalid_parameter', 'id, source and reason are texts of at most 512 bytes');
      const tenants = await tenantsOf(principal, directory, subject === undefined ? [] : [subject]);
      const place = await findSoon(id, tenants, source);
      await append(request, { id, reason, actor: principal.keyId, place });
      return reply.code(202).send({
        id,
        subject: place.customer_id,
        source: place.keyed_by_source ? place.source : null,
        reason,
        status: 'accepted',
      });
    },
  );

  app.get(
    '/api/v1/withdrawals',
    { schema: { tags: ['events'], summary: 'Voided and replaced events: by whom, when and why', querystring: Page } },
    async (request) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const after = fromCursor(parameters.cursor, ['number', 'int', 'number']) ?? [null, null, null];
      const tenants = await tenantsOf(principal, directory, listOf(parameters.subject));
      const { rows } = await pool.query<{ shard: number; log_offset: number; at: number; [column: string]: unknown }>(
        LIST,
        [tenants?.map((tenant) => tenant.id) ?? null, parameters.id ?? null, ...after, limit + 1],
      );
      const page = rows.slice(0, limit);
      const last = page.at(-1);
      return {
        data: page.map(({ at, ...row }) => row),
        next: rows.length > limit && last !== undefined ? toCursor([last.at, last.shard, last.log_offset]) : null,
      };
    },
  );

  /**
   * Finds the event, waiting for what is on the log and not committed yet.
   * @throws TidemarkError `not_found`, `overloaded`, `event_archived`, `archive_frozen`
   */
  async function findSoon(
    id: string,
    tenants: readonly Tenant[] | null,
    source: string | undefined,
  ): Promise<EventPlace> {
    const known = await find(id, tenants, source);
    if (known !== undefined) return known;
    const settled = await watchCommits(pool, log);
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      // In this order: what is committed before the event is looked for is seen then.
      const all = await settled();
      const found = await find(id, tenants, source);
      if (found !== undefined) return found;
      if (all)
        throw (await archivedDay(id, tenants, source)) ?? new TidemarkError('not_found', `there is no event ${id}`);
      if (performance.now() > deadline)
        throw new TidemarkError('overloaded', 'the event may not be processed yet: try again later', {
          headers: { 'retry-after': '5' },
        });
      await delay(LOOK_MS);
    }
  }

  /** Where an event that has left the database is, and how it comes back. */
  async function archivedDay(
    id: string,
    tenants: readonly Tenant[] | null,
    source: string | undefined,
  ): Promise<TidemarkError | undefined> {
    const tenantIds = tenants?.map((tenant) => tenant.id) ?? null;
    const found = await archive.search({ tenantIds, from: 0, to: now(), idempotencyKey: id }, MOST_FOUND);
    const days = found
      .filter((one) => one.type !== VOID_TYPE && (source === undefined || one.source === source))
      .map((one) => dayOf(one.at));
    if (days.length === 0) return undefined;
    const recall = [...new Set(days)].map((day) => `/api/v1/archives/${day}/recall`);
    return new TidemarkError(
      'event_archived',
      `${id} is an event of ${days[0]}: POST ${recall[0]} brings the day back`,
      {
        extensions: { days: [...new Set(days)], recall },
      },
    );
  }

  async function find(
    id: string,
    tenants: readonly Tenant[] | null,
    source: string | undefined,
  ): Promise<EventPlace | undefined> {
    const ids = tenants?.map((tenant) => tenant.id) ?? null;
    // By key first: the index knows it. An id of an unknown source has to be looked for.
    const keys =
      tenants?.flatMap(({ customerId: tenant }) => [
        claimKeyOf({ tenant, source: null, keyedBySource: false, key: id }),
        ...(source === undefined ? [] : [claimKeyOf({ tenant, source, keyedBySource: true, key: id })]),
      ]) ?? null;
    for (const some of keys === null ? [null] : [keys, null]) {
      const { rows } = await pool.query<EventPlace>(FIND, [id, ids, source ?? null, some]);
      if (rows.length > 1)
        throw new TidemarkError('ambiguous_event', `several events have the id ${id}: name subject and source`);
      if (rows[0] !== undefined) return rows[0];
    }
    return undefined;
  }

  async function append(
    request: FastifyRequest,
    { id, reason, actor, place }: { id: string; reason: string | null; actor: string; place: EventPlace },
  ): Promise<void> {
    if (place.topic !== log.topic)
      throw new TidemarkError('event_archived', `${id} came over another log, ${place.topic}: nobody owns its rollups`);
    const bytes = encodeEvent({
      tenant: place.customer_id,
      idempotency_key: id,
      source: place.source,
      keyed_by_source: place.keyed_by_source,
      type: VOID_TYPE,
      timestamp: now(),
      received_at: now(),
      user_id: null,
      request_id: request.id.slice(0, LIMITS.identifier),
      attributes: new Map([
        [ACTOR, { kind: 'string', value: actor }],
        [EVENT_AT, { kind: 'long', value: place.at }],
        ...(reason === null ? [] : [[REASON, { kind: 'string', value: reason }] as const]),
      ]),
      data: JSON.stringify({ tidemark: { actor, event_at: place.at, ...(reason === null ? {} : { reason }) } }),
    });
    try {
      await log.append([{ partition: place.partition, count: 1, bytes, ends: Uint32Array.of(bytes.length) }]);
    } catch (error) {
      if (!(error instanceof LogUnavailable)) throw error;
      throw new TidemarkError('log_unavailable', error.message, { headers: { 'retry-after': '1' }, cause: error });
    }
  }
};
