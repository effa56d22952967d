import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { readSettings, TidemarkError } from '../../schemas/index.ts';
import { storedKey } from '../api-client.ts';
import { definedOf } from '../start.ts';
import { type ImportState, importFile } from './import-file.ts';
import { FORMATS, type Format } from './readers.ts';

export { type ImportState, importFile } from './import-file.ts';

interface Flags {
  url?: string;
  key?: string;
  tenant?: string;
  format?: Format;
  map: Map<string, string>;
  set: Map<string, string>;
  shiftToNow?: boolean;
}

/** `name=value`, collected. */
function collect(text: string, all: Map<string, string>): Map<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('expected name=value');
  return new Map(all).set(text.slice(0, at), text.slice(at + 1));
}

export function importCommand(program: Command): void {
  program
    .command('import <file>')
    .description(
      'Send a file of usage to a running server: CSV, NDJSON or combined access log, plain or gzip; resumable, idempotent',
    )
    .option('--url <url>', 'the server (default: HOST and PORT of the settings)')
    .option(
      '--key <key>',
      'platform key with the scope admin (default: TIDEMARK_ADMIN_KEY, or the key in the data folder)',
    )
    .option('--tenant <customer_id>', 'whose usage it is, where the lines do not say')
    .addOption(new Option('--format <format>', 'told from the content where not given').choices(FORMATS))
    .option(
      '--map <field=column>',
      'CSV: which column is which field; a sum as tokens_consumed=In+Out',
      collect,
      new Map(),
    )
    .option('--set <field=value>', 'a field that every line gets', collect, new Map())
    .option('--shift-to-now', 'move all times by one constant so that the last event is now')
    .action(async (path: string, flags: Flags) => {
      if (!existsSync(path)) throw new TidemarkError('invalid_setting', `there is no file ${path}`);
      const settings = readSettings(definedOf(process.env));
      const state = await importFile({
        path,
        url: flags.url ?? `http://${settings.HOST}:${settings.PORT}`,
        key: flags.key ?? settings.TIDEMARK_ADMIN_KEY ?? storedKey(settings.TIDEMARK_DATA),
        format: flags.format,
        map: flags.map,
        set: { customer_id: flags.tenant ?? nameOf(path), ...Object.fromEntries(flags.set) },
        shiftToNow: flags.shiftToNow ?? false,
        progress: join(settings.TIDEMARK_DATA, 'imports'),
        onProgress: progressLine(),
      });
      process.stdout.write(`${summary(state)}\n`);
      if (state.rejected > 0) process.exitCode = 1;
    });
}

/** The file's name without endings. */
export const nameOf = (path: string): string => basename(path).replace(/(\.(csv|gz|log|ndjson|jsonl|json|txt))+$/i, '');

/** One live line on a terminal; elsewhere a line every few seconds. */
export function progressLine(): (state: ImportState) => void {
  let shown = 0;
  return (state) => {
    const now = performance.now();
    if (now - shown < (process.stderr.isTTY ? 100 : 3_000)) return;
    shown = now;
    const text = `${state.lines} lines, ${state.accepted} events accepted, ${Math.round(state.accepted / Math.max(state.seconds, 0.001))}/s`;
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}` : `${text}\n`);
  };
}

export function summary(state: ImportState): string {
  const resumed = state.resumedAt > 0 ? ` (resumed after line ${state.resumedAt})` : '';
  const lines = [
    `${state.lines} lines${resumed}: ${state.accepted} events accepted, ${state.rejected} rejected, ${state.seconds.toFixed(1)} s`,
    ...[...state.reasons].map(([reason, count]) => `  ${count} × ${reason}`),
    ...state.problems.map((problem) => `  ${problem}`),
  ];
  return `${process.stderr.isTTY ? '\r\x1b[K' : ''}${lines.join('\n')}`;
}
