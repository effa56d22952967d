import { randomBytes } from 'node:crypto';
import { schemaOf } from '../../schema/names.ts';
import { createTenantSchema, dropTenantSchema, ROLE_LIMITS } from '../../schema/tenant-schema.ts';
import type { SecretBox } from '../../secrets/cipher.ts';
import type { ProvisioningStep } from '../step.ts';

/** Roles, the schema, the views over shared tables. */
export const schemaStep = ({ secrets }: { secrets: SecretBox }): ProvisioningStep => ({
  name: 'schema',
  apply: async (client, { tenantId, request }) => {
    const password = randomBytes(24).toString('base64url');
    await client.query('INSERT INTO tenant_schemas (tenant_id, schema, secret) VALUES ($1, $2, $3)', [
      tenantId,
      schemaOf(tenantId),
      secrets.seal(password, `tenant_schemas/${tenantId}`),
    ]);
    await createTenantSchema(client, tenantId, { password, limits: ROLE_LIMITS[request.tier] });
  },
  undo: async (client, { tenantId }) => {
    await client.query('DELETE FROM tenant_schemas WHERE tenant_id = $1', [tenantId]);
    await dropTenantSchema(client, tenantId);
  },
});
