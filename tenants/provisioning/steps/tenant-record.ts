import { forgetInMemory } from '../../partition-memory.ts';
import type { ProvisioningStep } from '../step.ts';

const HAS_USAGE = 'SELECT FROM accounting WHERE tenant_id = $1 LIMIT 1';
const FORGET = `DELETE FROM tenants WHERE id = $1 AND status IN ('provisioning', 'failed')`;
const GIVE_BACK = `
  UPDATE tenants SET status = CASE WHEN purged_at IS NULL THEN 'discovered' ELSE 'deleted' END, tier = 'discovered', slug = NULL, email = NULL, name = coalesce($2, customer_id)
  WHERE id = $1 AND status IN ('provisioning', 'failed')`;

/**
 * The tenant's row. It is made with the request itself, so that a taken name is answered at once. Where events are
 * counted for it (before, or meanwhile) the undo gives it back to them: no usage is lost.
 */
export const tenantRecordStep = (): ProvisioningStep => ({
  name: 'tenant_record',
  undo: async (client, { tenantId, request }) => {
    // Before the question: from here on no batch commits that knows the tenant from memory.
    await forgetInMemory(client);
    const { rowCount: used } = await client.query(HAS_USAGE, [tenantId]);
    if (request.discovered === null && used === 0) await client.query(FORGET, [tenantId]);
    else await client.query(GIVE_BACK, [tenantId, request.discovered?.name ?? null]);
  },
});
