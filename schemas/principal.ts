import type {} from 'fastify';
/** Who is calling, and for whom. */
export const SCOPES = ['ingest', 'read', 'admin'] as const;
export type Scope = (typeof SCOPES)[number];
export const TIERS = ['free', 'standard', 'enterprise', 'discovered'] as const;
export type Tier = (typeof TIERS)[number];
export const TENANT_STATUSES = [
  'discovered',
  'provisioning',
  'ready',
  'suspended',
  'failed',
  'deleted',
  'archived',
] as const;
export type TenantStatus = (typeof TENANT_STATUSES)[number];

export interface Tenant {
  /** UUID */
  id: string;
  /** outside name, which events carry */
  customerId: string;
  slug: string | null;
  name: string;
  email: string | null;
  tier: Tier;
  status: TenantStatus;
  createdAt: Date;
}

export interface Principal {
  keyId: string;
  /** null: a platform key */
  tenant: Tenant | null;
  scopes: ReadonlySet<Scope>;
}

/** Known tenants, cached in this process. */
export interface TenantDirectory {
  /** What this process knows, at once; undefined says nothing about the database. */
  peek(customerId: string): Tenant | undefined;
  /** By UUID, customer_id or slug; asks the database when not cached. */
  find(reference: string): Promise<Tenant | undefined>;
  /** By customer_id for many; asks the database once for those not cached. Unknown ones are absent from the result. */
  findAll(customerIds: readonly string[]): Promise<Map<string, Tenant>>;
  /** Creates the unknown ones as metering-only tenants (`discovered`); idempotent, safe from many processes. */
  discover(customerIds: readonly string[]): Promise<Map<string, Tenant>>;
  /** Forgets what is cached: a change is seen at once in this process. */
  forget(): void;
}

/** API keys. */
export interface KeyStore {
  /**
   * The principal of a bearer key, cached for some seconds so that ingest outlives a short database outage.
   * @returns undefined for an unknown, malformed or revoked key
   */
  authenticate(bearer: string): Promise<Principal | undefined>;
  /** Forgets what is cached: a change is seen at once in this process. */
  forget(): void;
}

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The caller, if its key has this scope (decorated by the composition root).
     * @throws TidemarkError `unauthorized` | `forbidden`
     */
    authorize(scope: Scope): Promise<Principal>;
  }
}
