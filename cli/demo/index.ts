import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { readSettings, TidemarkError } from '../../schemas/index.ts';
import { definedOf } from '../start.ts';
import { runDemo } from './run-demo.ts';

export function demoCommand(program: Command): void {
  program
    .command('demo')
    .description(
      'Start a server of its own, post a day of usage with duplicates and late events, and print what it costs',
    )
    .option('--file <file>', 'a real file instead: CSV, NDJSON or combined access log, plain or gzip')
    .option('--shift-to-now', "move the file's times so that its last event is now")
    .option('--seed <number>', 'of the sample', '1')
    .option('--keep', 'keep the data of earlier demos')
    .action(async (flags: { file?: string; shiftToNow?: boolean; seed: string; keep?: boolean }) => {
      if (flags.file !== undefined && !existsSync(flags.file))
        throw new TidemarkError('invalid_setting', `there is no file ${flags.file}`);
      const settings = readSettings(definedOf(process.env));
      const exact = await runDemo({
        data: join(settings.TIDEMARK_DATA, 'demo'),
        file: flags.file,
        shiftToNow: flags.shiftToNow ?? false,
        seed: Number(flags.seed),
        keep: flags.keep ?? false,
      });
      if (!exact) process.exitCode = 1;
    });
}
