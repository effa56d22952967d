import type { Tenant } from '../schemas/index.ts';

/** A tenant as callers see it. */
export function presentTenant(tenant: Tenant) {
  return {
    id: tenant.id,
    slug: tenant.slug,
    customer_id: tenant.customerId,
    name: tenant.name,
    email: tenant.email,
    tier: tenant.tier,
    status: tenant.status,
    created_at: tenant.createdAt.toISOString(),
  };
}
