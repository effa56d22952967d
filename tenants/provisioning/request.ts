import { createHash } from 'node:crypto';
import type { Scope, Tier } from '../../schemas/index.ts';

/** What a tenant is made from; kept with the run, so it holds no secret. */
export interface ProvisioningRequest {
  slug: string;
  name: string;
  customerId: string;
  email: string | null;
  tier: Exclude<Tier, 'discovered'>;
  demoData: boolean;
  /** the first keys; their secrets were shown to whoever asked, and are not here */
  keys: { id: string; scopes: Scope[]; sha256: string }[];
  /** what the tenant was before, when events had made it known: an undo gives it back */
  discovered: { name: string } | null;
}

/** Tells whether a repeated Idempotency-Key comes with the same request. */
export function digestOf(request: Omit<ProvisioningRequest, 'keys' | 'discovered'>): Buffer {
  const { slug, name, customerId, email, tier, demoData } = request;
  return createHash('sha256')
    .update(JSON.stringify([slug, name, customerId, email, tier, demoData]))
    .digest();
}
