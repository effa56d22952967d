import type { FastifyPluginAsync } from 'fastify';
import { Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import { fromCursor, limitOf, requirePlatform, toCursor } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const NIL = '00000000-0000-0000-0000-000000000000';
const Page = { limit: Type.Optional(Type.String()), cursor: Type.Optional(Type.String()) };

const ACCOUNTS = `
  SELECT a.tenant_id, t.customer_id, sum(received)::text AS received, sum(accepted)::text AS accepted, sum(duplicate)::text AS duplicate,
    sum(dead_lettered)::text AS dead_lettered
  FROM accounting AS a LEFT JOIN tenants AS t ON t.id = a.tenant_id GROUP BY 1, 2 ORDER BY 2`;

interface AccountRow {
  tenant_id: string;
  customer_id: string | null;
  received: string;
  accepted: string;
  duplicate: string;
  dead_lettered: string;
}

/** Reconciliation and dead letters. */
export const operationRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, log }) => {
  app.get(
    '/api/v1/reconciliation',
    { schema: { tags: ['operations'], summary: 'Where every received event went' } },
    async (request) => {
      const principal = await request.authorize('read');
      // The log's end first: a commit in between makes pending too small by nothing, never negative.
      const ranges = await log.ranges();
      const { rows: offsets } = await pool.query<{ partition: number; next: number }>(
        'SELECT partition, next::float8 AS next FROM log_offsets WHERE topic = $1',
        [log.topic],
      );
      const { rows } = await pool.query<AccountRow>(ACCOUNTS);
      const next = new Map(offsets.map((row) => [row.partition, row.next]));
      const pending = ranges.reduce(
        (sum, { partition, end }) => sum + Math.max(0, end - (next.get(partition) ?? 0)),
        0,
      );
      const counts = (row: AccountRow) => ({
        received: Number(row.received),
        accepted: Number(row.accepted),
        duplicate: Number(row.duplicate),
        dead_lettered: Number(row.dead_lettered),
      });
      const all = rows.map((row) => ({
        tenant: row.customer_id,
        tenant_id: row.tenant_id === NIL ? null : row.tenant_id,
        ...counts(row),
        // Whose the waiting records are is known when they are read; that there are none is known for everybody.
        pending: pending === 0 ? 0 : null,
      }));
      if (principal.tenant !== null) {
        const own = all.filter((row) => row.tenant_id === principal.tenant?.id);
        return { total: sumOf(own, pending === 0 ? 0 : null), tenants: own };
      }
      return { total: sumOf(all, pending), tenants: all };
    },
  );

  const Letters = Type.Object({ ...Page, reason: Type.Optional(Type.String()) });
  app.get(
    '/api/v1/dead-letters',
    { schema: { tags: ['operations'], summary: 'Records that could not be applied', querystring: Letters } },
    async (request) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const after = fromCursor(parameters.cursor, ['number'])?.[0] ?? 0;
      const { rows } = await pool.query<{ id: number; payload: Buffer; tenant_id: string; [column: string]: unknown }>(
        `SELECT d.id::float8 AS id, d.tenant_id, t.customer_id AS tenant, d.shard, d.log_offset::float8 AS log_offset, d.reason, d.detail, d.payload, d.created_at, d.requeued_at
       FROM dead_letters AS d LEFT JOIN tenants AS t ON t.id = d.tenant_id
       WHERE d.id > $1 AND ($2::text IS NULL OR d.reason = $2) AND ($3::uuid IS NULL OR d.tenant_id = $3) ORDER BY d.id LIMIT $4`,
        [after, parameters.reason ?? null, principal.tenant?.id ?? null, limit + 1],
      );
      const page = rows.slice(0, limit);
      const last = page.at(-1);
      return {
        data: page.map(({ tenant_id: tenantId, payload, ...row }) => ({
          ...row,
          tenant_id: tenantId === NIL ? null : tenantId,
          payload: payload.toString('base64'),
        })),
        next: rows.length > limit && last !== undefined ? toCursor([last.id]) : null,
      };
    },
  );

  app.post(
    '/api/v1/dead-letters/:id/requeue',
    { schema: { tags: ['operations'], summary: 'Put a dead letter back on the log' } },
    async (request, reply) => {
      const principal = await request.authorize('admin');
      requirePlatform(principal);
      const { id } = request.params as { id: string };
      if (!/^\d{1,15}$/.test(id)) throw new TidemarkError('not_found', `there is no dead letter ${id}`);
      await requeue(Number(id));
      return reply.code(202).send({ id: Number(id), requeued: true });
    },
  );

  /**
   * Appends first, marks after: a crash in between leaves it requeueable, and its claim drops the repeat. The row is
   * locked meanwhile, so that two requests don't both append.
   */
  async function requeue(id: number): Promise<void> {
    await withTransaction(pool, async (client) => {
      const { rows } = await client.query<{ partition: number; payload: Buffer; requeued_at: Date | null }>(
        'SELECT o.partition, d.payload, d.requeued_at FROM dead_letters AS d JOIN log_offsets AS o USING (shard) WHERE d.id = $1 AND o.topic = $2 FOR UPDATE OF d',
        [id, log.topic],
      );
      const letter = rows[0];
      if (letter === undefined) throw new TidemarkError('not_found', `there is no dead letter ${id}`);
      if (letter.requeued_at !== null) throw new TidemarkError('conflict', `dead letter ${id} was requeued already`);
      const { partition, payload } = letter;
      await log.append([{ partition, count: 1, bytes: payload, ends: Uint32Array.of(payload.length) }]);
      await client.query('UPDATE dead_letters SET requeued_at = now() WHERE id = $1', [id]);
    });
  }
};

interface Counts {
  received: number;
  accepted: number;
  duplicate: number;
  dead_lettered: number;
}

function sumOf(rows: readonly Counts[], pending: number | null) {
  const total = { received: 0, accepted: 0, duplicate: 0, dead_lettered: 0, pending };
  for (const row of rows) {
    total.received += row.received;
    total.accepted += row.accepted;
    total.duplicate += row.duplicate;
    total.dead_lettered += row.dead_lettered;
  }
  return total;
}
