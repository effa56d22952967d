import type { Pool } from 'pg';
import { type Scope, type Tenant, TidemarkError, type Tier } from '../../schemas/index.ts';
import { generateKey, TENANT_COLUMNS, type TenantRow, toTenant, withTransaction } from '../../sinks/index.ts';
import { digestOf, type ProvisioningRequest } from './request.ts';
import { LEASE_SECONDS } from './run-store.ts';

export interface NewTenant {
  slug: string;
  name: string;
  customerId?: string | undefined;
  email?: string | undefined;
  tier?: Exclude<Tier, 'discovered'> | undefined;
  demoData?: boolean | undefined;
}

/** A run that was begun, or the one that the same request began before. */
export interface Begun {
  provisioningId: string;
  tenant: Tenant;
  /** `secret` is there for a new run only: it is shown once */
  keys: { id: string; scopes: Scope[]; secret?: string }[];
  repeated: boolean;
}

const SCOPES_OF_FIRST_KEY: Scope[] = ['ingest', 'read'];

const BY_KEY = 'SELECT id, tenant_id, request_sha256, request FROM provisionings WHERE idempotency_key = $1';
const TENANT = `SELECT ${TENANT_COLUMNS} FROM tenants WHERE id = $1`;
const TAKEN = 'SELECT name, status, purged_at FROM tenants WHERE customer_id = $1 FOR UPDATE';
const CREATE = `
  INSERT INTO tenants (customer_id, slug, name, email, tier, status) VALUES ($1, $2, $3, $4, $5, 'provisioning')
  ON CONFLICT (customer_id) DO UPDATE SET slug = excluded.slug, name = excluded.name, email = excluded.email,
    tier = excluded.tier, status = 'provisioning', delete_after = NULL
    WHERE tenants.status = 'discovered' OR tenants.purged_at IS NOT NULL
  RETURNING ${TENANT_COLUMNS}`;
const BEGIN = `
  INSERT INTO provisionings (tenant_id, slug, idempotency_key, request_sha256, request, lease_owner, lease_until, seq)
  VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7), 1) RETURNING id`;
// The tenant's record is made right here: the first step is done.
const ADD_STEPS = `
  INSERT INTO provisioning_steps (provisioning_id, position, step, status, attempt, started_at, ended_at)
  SELECT $1, n, step, CASE WHEN n = 1 THEN 'done' ELSE 'waiting' END, CASE WHEN n = 1 THEN 1 ELSE 0 END,
    CASE WHEN n = 1 THEN now() END, CASE WHEN n = 1 THEN clock_timestamp() END
  FROM unnest($2::text[]) WITH ORDINALITY AS s(step, n)`;
const FIRST_EVENT = `
  INSERT INTO provisioning_events (provisioning_id, seq, event)
  VALUES ($1, 1, jsonb_build_object('type', 'step', 'step', $2::text, 'status', 'done', 'attempt', 1, 'error', NULL))`;

/**
 * Makes the tenant's row and its run in one transaction; the run is leased to `owner`.
 * @param steps names of the steps, in order
 * @throws TidemarkError `conflict` when the slug or the customer_id is taken, `idempotency_mismatch`
 */
export async function beginProvisioning(
  pool: Pool,
  tenant: NewTenant,
  { idempotencyKey, owner, steps }: { idempotencyKey: string | undefined; owner: string; steps: readonly string[] },
): Promise<Begun> {
  const wanted = {
    slug: tenant.slug,
    name: tenant.name,
    customerId: tenant.customerId ?? tenant.slug,
    email: tenant.email ?? null,
    tier: tenant.tier ?? 'standard',
    demoData: tenant.demoData ?? false,
  } as const;
  const digest = digestOf(wanted);
  const repeated = () =>
    idempotencyKey === undefined ? Promise.resolve(undefined) : findRepeated(pool, idempotencyKey, digest);
  const known = await repeated();
  if (known !== undefined) return known;
  try {
    return await create(pool, wanted, digest, { idempotencyKey, owner, steps });
  } catch (error) {
    const taken = isUniqueViolation(error) || (error instanceof TidemarkError && error.code === 'conflict');
    // The same request at the same moment was first, and has what we wanted.
    const first = taken ? await repeated() : undefined;
    if (first !== undefined) return first;
    if (isUniqueViolation(error)) throw new TidemarkError('conflict', `slug ${wanted.slug} is taken`, { cause: error });
    throw error;
  }
}

async function create(
  pool: Pool,
  wanted: Omit<ProvisioningRequest, 'keys' | 'discovered'>,
  digest: Buffer,
  { idempotencyKey, owner, steps }: { idempotencyKey: string | undefined; owner: string; steps: readonly string[] },
): Promise<Begun> {
  const { id: keyId, secret, sha256 } = generateKey();
  return withTransaction(pool, async (client) => {
    const before = (await client.query<{ name: string }>(TAKEN, [wanted.customerId])).rows[0];
    const { rows } = await client.query<TenantRow>(CREATE, [
      wanted.customerId,
      wanted.slug,
      wanted.name,
      wanted.email,
      wanted.tier,
    ]);
    if (rows[0] === undefined) throw new TidemarkError('conflict', `customer_id ${wanted.customerId} exists`);
    const created = toTenant(rows[0]);
    const request: ProvisioningRequest = {
      ...wanted,
      keys: [{ id: keyId, scopes: SCOPES_OF_FIRST_KEY, sha256: sha256.toString('hex') }],
      discovered: before === undefined ? null : { name: before.name },
    };
    const run = await client.query<{ id: string }>(BEGIN, [
      created.id,
      wanted.slug,
      idempotencyKey ?? null,
      digest,
      request,
      owner,
      LEASE_SECONDS,
    ]);
    const provisioningId = run.rows[0]?.id ?? '';
    await client.query(ADD_STEPS, [provisioningId, steps]);
    await client.query(FIRST_EVENT, [provisioningId, steps[0]]);
    return {
      provisioningId,
      tenant: created,
      keys: [{ id: keyId, scopes: SCOPES_OF_FIRST_KEY, secret }],
      repeated: false,
    };
  });
}

async function findRepeated(pool: Pool, idempotencyKey: string, digest: Buffer): Promise<Begun | undefined> {
  const { rows } = await pool.query<{
    id: string;
    tenant_id: string;
    request_sha256: Buffer;
    request: ProvisioningRequest;
  }>(BY_KEY, [idempotencyKey]);
  const run = rows[0];
  if (run === undefined) return undefined;
  if (!run.request_sha256.equals(digest))
    throw new TidemarkError('idempotency_mismatch', 'this Idempotency-Key came with another body before');
  const tenant = (await pool.query<TenantRow>(TENANT, [run.tenant_id])).rows[0];
  // Undone in this very moment: the key is free again then.
  if (tenant === undefined) return undefined;
  return {
    provisioningId: run.id,
    tenant: toTenant(tenant),
    keys: run.request.keys.map(({ id, scopes }) => ({ id, scopes })),
    repeated: true,
  };
}

const isUniqueViolation = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === '23505';
