import type { Pool } from 'pg';
import type { Job } from '../../schemas/index.ts';
import type { HeartbeatService } from '../../sinks/index.ts';
import type { Logger } from '../ports.ts';
import type { SecretBox } from '../secrets/cipher.ts';

const WATCHED = `
  SELECT t.id, m.secret FROM tenants AS t JOIN tenant_monitors AS m ON m.tenant_id = t.id
  WHERE t.status = 'ready' AND m.kind = 'heartbeat' ORDER BY t.id`;
const AT_ONCE = 10;

/** Beats for every tenant whose check passes; where it does not, the outside service notices the silence and alerts. */
export function createHeartbeatJob(deps: {
  pool: Pool;
  secrets: SecretBox;
  service: HeartbeatService;
  /** proves that the tenant can be served; throws when not */
  check(tenantId: string): Promise<void>;
  logger: Logger;
}): Job {
  return {
    name: 'tenants_heartbeat',
    schedule: '* * * * *',
    async run({ signal }) {
      const { rows } = await deps.pool.query<{ id: string; secret: Buffer }>(WATCHED);
      let beaten = 0;
      const queue = rows.values();
      const worker = async () => {
        for (const { id, secret } of queue) {
          signal.throwIfAborted();
          try {
            await deps.check(id);
            await deps.service.beat(deps.secrets.open(secret, `tenant_monitors/${id}`));
            beaten++;
          } catch (error) {
            deps.logger.warn({ err: error, tenant_id: id }, 'no heartbeat');
          }
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
      return { beaten, of: rows.length };
    },
  };
}
