import type { Command } from 'commander';
import { askServer } from '../api-client.ts';
import { askTenant, type Flags, print, withReason } from './flags.ts';
import { showProgress } from './progress.ts';

interface Created {
  id: string;
  slug: string;
  status: string;
  schema: string;
  subdomain: string | null;
  keys: { id: string; secret?: string }[];
  provisioning: { stream: string };
}

/** `tidemark tenants create`: asks, then shows the steps as they happen. */
export function createCommand(tenants: Command): void {
  withReason(tenants.command('create <slug>').description('Provision a tenant and follow its steps'))
    .option('--name <name>', 'default: the slug')
    .option('--customer-id <id>', 'the name that events carry; default: the slug')
    .option('--email <address>', 'who gets the welcome mail')
    .option('--tier <tier>', 'free, standard or enterprise', 'standard')
    .option('--demo-data', 'with sample agents and tasks')
    .option('--idempotency-key <key>', 'the same key gives the same tenant')
    .action(
      async (
        slug: string,
        flags: Flags & {
          name?: string;
          customerId?: string;
          email?: string;
          tier: string;
          demoData?: boolean;
          idempotencyKey?: string;
        },
      ) => {
        const answer = await askServer(flags, '/api/v1/tenants', {
          method: 'POST',
          body: {
            slug,
            name: flags.name ?? slug,
            tier: flags.tier,
            ...(flags.customerId === undefined ? {} : { customer_id: flags.customerId }),
            ...(flags.email === undefined ? {} : { email: flags.email }),
            ...(flags.demoData === undefined ? {} : { demo_data: true }),
          },
          headers: {
            prefer: 'respond-async',
            ...(flags.idempotencyKey === undefined ? {} : { 'idempotency-key': flags.idempotencyKey }),
            ...(flags.reason === undefined ? {} : { 'tidemark-reason': flags.reason }),
          },
        });
        const created = (await answer.json()) as Created;
        const outcome = await showProgress(() => askTenant(flags, created.id, '/provisioning/stream'));
        if (outcome !== 'ready') {
          print(`${slug} could not be provisioned; everything was undone.`);
          process.exitCode = 1;
          return;
        }
        print(
          [
            '',
            `tenant   ${created.id}`,
            `schema   ${created.schema}`,
            ...(created.subdomain === null ? [] : [`address  ${created.subdomain}`]),
            ...created.keys.map((key) => `key      ${key.secret ?? `${key.id} (its secret was shown before)`}`),
          ].join('\n'),
        );
      },
    );
}
