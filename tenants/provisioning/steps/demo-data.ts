import { quoteIdentifier } from '../../../sinks/index.ts';
import { ownerRoleOf, schemaOf } from '../../schema/names.ts';
import type { ProvisioningStep } from '../step.ts';

const AGENTS = 5;
const TASKS = 40;

/** Sample agents and tasks, the same for every tenant. */
export const demoDataStep = (): ProvisioningStep => ({
  name: 'demo_data',
  applies: ({ request }) => request.demoData,
  apply: async (client, { tenantId }) => {
    const schema = schemaOf(tenantId);
    await client.query(
      `SET LOCAL ROLE ${quoteIdentifier(ownerRoleOf(tenantId))}; SET LOCAL search_path = ${quoteIdentifier(schema)}`,
    );
    await client.query(
      `INSERT INTO agents (name, agent_type)
       SELECT 'Sample agent ' || n, (ARRAY['research', 'support', 'coding'])[1 + n % 3] FROM generate_series(1, $1::int) AS n`,
      [AGENTS],
    );
    await client.query(
      `INSERT INTO tasks (agent_id, title, status, tokens)
       SELECT a.id, 'Sample task ' || n, (ARRAY['queued', 'running', 'succeeded', 'succeeded', 'failed'])[1 + n % 5], 100 * n
       FROM generate_series(1, $1::int) AS n
       JOIN (SELECT id, row_number() OVER (ORDER BY name) AS number FROM agents) AS a ON a.number = 1 + n % $2::int`,
      [TASKS, AGENTS],
    );
    await client.query('RESET ROLE; SET LOCAL search_path = tidemark');
  },
});
