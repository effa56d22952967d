/** Which requests are audited: those of platform keys about tenants (docs/isolation.md). */
import type { FastifyRequest } from 'fastify';
import type { Principal, Scope } from '../schemas/index.ts';
import type { AuditTrail } from '../tenants/index.ts';

/** Called before a request is answered; throws when the entry could not be made durable: then there is no answer. */
export type Audit = (request: FastifyRequest, principal: Principal, scope: Scope) => Promise<void>;

/** Routes that say nothing about any one tenant, and are asked often. */
const OF_THE_PLATFORM = new Set(['/metrics', '/api/v1/reconciliation', '/api/v1/rating/preview', '/api/v1/meters']);
const JOBS = /^\/api\/v1\/jobs(\/|$)/;
/** Totals over all tenants show none of them. */
const METER_QUERY = /^\/api\/v1\/meters\/:[^/]+\/query$/;
const MOST_REFERENCES = 50;

export function auditRequests(trail: AuditTrail): Audit {
  const seen = new WeakSet<FastifyRequest>();
  return async (request, principal, scope) => {
    // Sending events is not looking at them.
    if (principal.tenant !== null || scope === 'ingest' || seen.has(request)) return;
    const route = request.routeOptions.url ?? '';
    if (OF_THE_PLATFORM.has(route) || JOBS.test(route)) return;
    const tenants = referencesOf(request);
    if (tenants.length === 0 && METER_QUERY.test(route) && !groupsBySubject(request)) return;
    seen.add(request);
    await trail.record({
      keyId: principal.keyId,
      action: `${request.method} ${route}`,
      tenants,
      reason: reasonOf(request),
      requestId: request.id,
    });
  };
}

/** The tenants that a request names, wherever it does. */
function referencesOf(request: FastifyRequest): string[] {
  const found: string[] = [];
  for (const [source, names] of [
    [request.params, ['ref', 'tenant', 'subject']],
    [request.query, ['subject', 'tenant', 'filterCustomerId']],
    [request.body, ['tenant', 'subject', 'filterCustomerId', 'customer_id', 'slug']],
  ] as const) {
    if (typeof source !== 'object' || source === null) continue;
    for (const [name, value] of Object.entries(source))
      if (names.some((one) => one === name))
        for (const one of Array.isArray(value) ? value : [value])
          if (typeof one === 'string' && found.length < MOST_REFERENCES)
            found.push(one.slice(0, 128).toWellFormed().replaceAll('\0', ''));
  }
  return found;
}

/** `Tidemark-Reason`: a ticket, a word. */
function reasonOf(request: FastifyRequest): string | null {
  const given = request.headers['tidemark-reason'];
  return given === undefined ? null : String(given).slice(0, 500);
}

function groupsBySubject({ query, body }: FastifyRequest): boolean {
  return [query, body].some(
    (source) =>
      typeof source === 'object' &&
      source !== null &&
      'groupBy' in source &&
      [source.groupBy].flat().some((names) => String(names).split(',').includes('subject')),
  );
}
