/** `tidemark shards …` and `tidemark tenants move`, over HTTP. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { TidemarkError } from '../schemas/index.ts';
import { askServer, type ServerFlags, withServer } from './api-client.ts';
import { table } from './demo/table.ts';

interface ShardShape {
  id: string;
  topic: string;
  capacity: number;
  is_open: boolean;
  tenants: number;
}
const POLL_MS = 300;

export function shardCommands(program: Command): void {
  const shards = program.command('shards').description('Databases and topics that tenants live in');
  withServer(shards.command('list').description('All shards')).action(async (flags: ServerFlags) =>
    show(await askServer(flags, '/api/v1/shards')),
  );
  withServer(
    shards
      .command('add <id> <topic>')
      .description('Add a shard; the URL of its database comes from SHARD_DATABASE_URL, so that it is in no history')
      .option('--capacity <n>', 'tenants that it is made for', Number, 200),
  ).action(async (id: string, topic: string, flags: ServerFlags & { capacity: number }) => {
    const databaseUrl = process.env.SHARD_DATABASE_URL;
    if (databaseUrl === undefined) throw new TidemarkError('invalid_setting', 'SHARD_DATABASE_URL is not set');
    const body = { id, topic, capacity: flags.capacity, database_url: databaseUrl };
    await show(await askServer(flags, '/api/v1/shards', { method: 'POST', body }));
  });
}

/** @param tenants the group of commands about tenants */
export function moveCommand(tenants: Command): void {
  withServer(
    tenants
      .command('move <ref>')
      .description('Move a tenant to another shard; it can not log in while it is copied')
      .requiredOption('--to <shard>', 'where to'),
  ).action(async (ref: string, flags: ServerFlags & { to: string }) => {
    const path = `/api/v1/tenants/${encodeURIComponent(ref)}/move`;
    const answer = await askServer(flags, path, { method: 'POST', body: { shard: flags.to } });
    const { job } = (await answer.json()) as { job: string };
    for (;;) {
      const run = (await (await askServer(flags, `/api/v1/jobs/${job}`)).json()) as {
        status: string;
        error: string | null;
        result: { from: string; to: string; rows: number } | null;
      };
      if (run.status === 'failed') throw new TidemarkError('conflict', run.error ?? 'the move failed');
      if (run.status === 'succeeded') {
        process.stdout.write(`${ref}: ${run.result?.from} → ${run.result?.to}, ${run.result?.rows} rows\n`);
        return;
      }
      await delay(POLL_MS);
    }
  });
}

async function show(answer: Response): Promise<void> {
  const { data } = (await answer.json()) as { data: ShardShape[] };
  const rows = data.map((one) => [
    one.id,
    one.topic,
    `${one.tenants} of ${one.capacity}`,
    one.is_open ? 'open' : 'closed',
  ]);
  process.stdout.write(`${table(['shard', 'topic', 'tenants', 'new ones'], rows)}\n`);
}
