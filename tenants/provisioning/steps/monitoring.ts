import type { Heartbeat, HeartbeatService } from '../../../sinks/index.ts';
import type { SecretBox } from '../../secrets/cipher.ts';
import type { ProvisioningStep } from '../step.ts';

export interface HeartbeatDeps {
  service: HeartbeatService;
  /** seconds between two beats, and how late one may be */
  period: number;
  grace: number;
}

/** The name of a tenant's heartbeat outside: the UUID alone. */
export const heartbeatName = (tenantId: string): string => `tidemark tenant ${tenantId}`;

const HEALTH_CHECKS = {
  connection: { every_seconds: 300 },
  sample_query: { every_seconds: 300 },
  schema_version: { every_seconds: 300 },
};
const ALERT_RULES = {
  error_rate: { above: '0.05', over_minutes: 15 },
  storage_growth: { factor: '3', over_hours: 24 },
  pool_queue: { above: 0.8, over_minutes: 5 },
};

const ADD = `
  INSERT INTO tenant_monitors (tenant_id, kind, name, definition, external_id, secret) VALUES ($1, $2, $3, $4, $5, $6)`;

/** Health checks, alert rules, and a heartbeat at the outside service where one is set. */
export const monitoringStep = ({
  heartbeats,
  secrets,
}: {
  heartbeats: HeartbeatDeps | undefined;
  secrets: SecretBox;
}): ProvisioningStep => ({
  name: 'monitoring',
  call: async ({ tenantId }) => {
    if (heartbeats === undefined) return undefined;
    const { service, period, grace } = heartbeats;
    return service.ensure(heartbeatName(tenantId), { period, grace });
  },
  apply: async (client, { tenantId }, called) => {
    const rows = [
      ...Object.entries(HEALTH_CHECKS).map(([name, definition]) => ['health_check', name, definition] as const),
      ...Object.entries(ALERT_RULES).map(([name, definition]) => ['alert_rule', name, definition] as const),
    ];
    for (const [kind, name, definition] of rows)
      await client.query(ADD, [tenantId, kind, name, definition, null, null]);
    if (heartbeats === undefined || !isHeartbeat(called)) return;
    const { period, grace } = heartbeats;
    const sealed = secrets.seal(called.url, `tenant_monitors/${tenantId}`);
    await client.query(ADD, [tenantId, 'heartbeat', 'better_stack', { period, grace }, called.id, sealed]);
  },
  undo: async (client, { tenantId }) => {
    await client.query('DELETE FROM tenant_monitors WHERE tenant_id = $1', [tenantId]);
  },
  // By name: a crash may have come between the service's answer and our row.
  undoCall: async ({ tenantId }) => {
    await heartbeats?.service.remove(heartbeatName(tenantId));
  },
});

const isHeartbeat = (value: unknown): value is Heartbeat =>
  typeof value === 'object' && value !== null && 'id' in value && 'url' in value;
