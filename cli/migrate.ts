/** `tidemark migrate …`: migrations of tenants' schemas on a running server, in a terminal. */
import { setTimeout as delay } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { TidemarkError } from '../schemas/index.ts';
import { askServer, type ServerFlags, withServer } from './api-client.ts';
import { table } from './demo/table.ts';

interface Difference {
  added: string[];
  removed: string[];
}
interface PlanShape {
  strategy: string;
  reasons: string[];
  tenants: number;
  diff: Difference;
  versions: { version: number; name: string; up: string; undo: string; diff: Difference }[];
}
interface RunShape {
  id: string;
  kind: string;
  strategy: string;
  status: string;
  versions: number[];
  error: string | null;
  created_at: string;
  counts: Record<string, number>;
  targets: { tenant_id: string; wave: number; status: string; step: string | null; error: string | null }[];
}

const PATH = '/api/v1/migrations';
const POLL_MS = 300;

export function migrateCommand(program: Command): void {
  const migrate = program.command('migrate').description("Migrations of tenants' schemas, on a running server");
  const strategy = () =>
    new Option('--strategy <strategy>', 'told from the plan where not given').choices(['in_place', 'blue_green']);
  const tenants = () => new Option('--tenant <ref...>', 'only these tenants');

  withServer(
    migrate
      .command('plan')
      .description('Show the SQL and the difference it makes; changes nothing')
      .addOption(strategy())
      .addOption(tenants()),
  ).action(async (flags: ServerFlags & { strategy?: string; tenant?: string[] }) => {
    const answer = await askServer(flags, `${PATH}/plan`, {
      method: 'POST',
      body: defined({ strategy: flags.strategy, tenants: flags.tenant }),
    });
    process.stdout.write(describePlan((await answer.json()) as PlanShape));
  });

  withServer(
    migrate
      .command('apply')
      .description('Migrate: test schema, a few tenants, 25 %, 50 %, all')
      .addOption(strategy())
      .addOption(tenants())
      .option('--parallel <n>', 'tenants at once', Number)
      .option('--continue', 'go on after a failure, until several in a row')
      .option('--detach', 'do not wait for the end'),
  ).action(
    async (
      flags: ServerFlags & { strategy?: string; tenant?: string[]; parallel?: number; continue?: true; detach?: true },
    ) => {
      const body = defined({
        strategy: flags.strategy,
        tenants: flags.tenant,
        parallel: flags.parallel,
        on_failure: flags.continue === true ? 'continue' : undefined,
      });
      const run = (await (await askServer(flags, PATH, { method: 'POST', body })).json()) as RunShape;
      await follow(flags, run, flags.detach === true);
    },
  );

  withServer(migrate.command('status [run]').description('How a run stands; the newest where none is named')).action(
    async (id: string | undefined, flags: ServerFlags) => {
      process.stdout.write(describeRun(await load(flags, id ?? (await newest(flags)))));
    },
  );

  for (const [name, about] of [
    ['rollback', 'Take a run back for every tenant that it changed'],
    ['resume', 'Go on after a pause or a failure'],
    ['pause', 'Begin no further tenant'],
  ] as const)
    withServer(migrate.command(`${name} [run]`).description(`${about}; the newest where none is named`)).action(
      async (id: string | undefined, flags: ServerFlags) => {
        const path = `${PATH}/${id ?? (await newest(flags))}/${name}`;
        await follow(
          flags,
          (await (await askServer(flags, path, { method: 'POST' })).json()) as RunShape,
          name === 'pause',
        );
      },
    );

  withServer(migrate.command('skip <tenant> [run]').description('Leave one tenant out of a run')).action(
    async (tenant: string, id: string | undefined, flags: ServerFlags) => {
      const path = `${PATH}/${id ?? (await newest(flags))}/skip`;
      const answer = await askServer(flags, path, { method: 'POST', body: { tenant } });
      process.stdout.write(describeRun((await answer.json()) as RunShape));
    },
  );

  withServer(migrate.command('retry [tenant] [run]').description('Try failed tenants (or one tenant) again')).action(
    async (tenant: string | undefined, id: string | undefined, flags: ServerFlags) => {
      const path = `${PATH}/${id ?? (await newest(flags))}/retry`;
      const answer = await askServer(flags, path, { method: 'POST', body: defined({ tenant }) });
      await follow(flags, (await answer.json()) as RunShape, false);
    },
  );
}

const load = async (flags: ServerFlags, id: string): Promise<RunShape> =>
  (await (await askServer(flags, `${PATH}/${encodeURIComponent(id)}`)).json()) as RunShape;

async function newest(flags: ServerFlags): Promise<string> {
  const { data } = (await (await askServer(flags, `${PATH}?limit=1`)).json()) as { data: { id: string }[] };
  if (data[0] === undefined) throw new TidemarkError('not_found', 'there is no migration run');
  return data[0].id;
}

/** Shows a run until it ends; its failure is the command's. */
async function follow(flags: ServerFlags, begun: RunShape, detach: boolean): Promise<void> {
  let run = begun;
  while (!detach && run.status === 'running') {
    const line = `${run.kind} ${run.id}: ${countsText(run)}`;
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
    await delay(POLL_MS);
    run = await load(flags, run.id);
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  process.stdout.write(describeRun(run));
  if (run.status === 'failed') process.exitCode = 1;
}

const countsText = ({ counts }: RunShape): string =>
  Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([status, count]) => `${count} ${status}`)
    .join(', ');

function describeRun(run: RunShape): string {
  const shown = run.targets.filter((one) => one.status !== 'pending' && one.status !== 'succeeded');
  const rows = shown.map((one) => [one.tenant_id, String(one.wave), one.status, one.step ?? '', one.error ?? '']);
  return [
    `${run.kind} ${run.id} (${run.strategy}) of ${run.versions.join(', ')}: ${run.status}; ${countsText(run)}`,
    ...(run.error === null ? [] : [run.error]),
    ...(rows.length === 0 ? [] : [table(['tenant', 'wave', 'status', 'step', 'error'], rows)]),
    '',
  ].join('\n');
}

function describePlan(plan: PlanShape): string {
  if (plan.versions.length === 0) return 'Every tenant has every migration.\n';
  const lines = [`${plan.tenants} tenants, ${plan.strategy}`];
  for (const reason of plan.reasons) lines.push(`  because ${reason}`);
  for (const one of plan.versions) {
    lines.push('', `-- ${one.version}_${one.name} (way back: ${one.undo})`, one.up.trim());
    lines.push(...one.diff.removed.map((line) => `  - ${line}`), ...one.diff.added.map((line) => `  + ${line}`));
  }
  return `${lines.join('\n')}\n`;
}

const defined = (fields: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
