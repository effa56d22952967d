import { Command } from 'commander';
import { TidemarkError } from '../schemas/index.ts';
import { archiveCommands } from './archive-commands.ts';
import { planCommands, statementCommands } from './billing-commands.ts';
import { demoCommand } from './demo/index.ts';
import { doctorCommand } from './doctor.ts';
import { importCommand } from './import/index.ts';
import { migrateCommand } from './migrate.ts';
import { rollupCommands } from './rollup-commands.ts';
import { shardCommands } from './shards.ts';
import { startCommand } from './start.ts';
import { tenantCommands } from './tenants/index.ts';

const program = new Command('tidemark').description(
  'Exact usage metering, percentiles and billing for multi-tenant products',
);
startCommand(program);
importCommand(program);
doctorCommand(program);
demoCommand(program);
migrateCommand(program);
shardCommands(program);
planCommands(program);
statementCommands(program);
archiveCommands(program);
rollupCommands(program);
tenantCommands(program);

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`tidemark: ${said(error)}\n`);
  process.exitCode = 1;
}

/** What the operator can mend is said in words; anything else is a bug and shows where. */
function said(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof TidemarkError) return `${error.message} (${error.code})`;
  const of = 'code' in error && typeof error.code === 'string' ? error.code : '';
  // Of a file, a network, a zip or PostgreSQL; those of Node itself begin with ERR_.
  return of === '' || of.startsWith('ERR_') ? (error.stack ?? error.message) : `${error.message || of} (${of})`;
}
