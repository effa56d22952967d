import type { ProvisioningStep } from '../step.ts';

/** The first keys begin to work, and the subdomain leads to the tenant. */
export const keysStep = (): ProvisioningStep => ({
  name: 'keys_and_subdomain',
  apply: async (client, { tenantId, request }) => {
    for (const { id, scopes, sha256 } of request.keys)
      await client.query(
        'INSERT INTO api_keys (id, tenant_id, scopes, name, secret_sha256) VALUES ($1, $2, $3, $4, $5)',
        [id, tenantId, scopes, 'first key', Buffer.from(sha256, 'hex')],
      );
  },
  undo: async (client, { request }) => {
    await client.query('DELETE FROM api_keys WHERE id = ANY ($1)', [request.keys.map((key) => key.id)]);
  },
});
