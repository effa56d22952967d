/** Writes the manual's pages and the README's table that come from code; with `--check` only says whether they are current. Run by `npm run docs`. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readResults, resultsTable } from '../../bench/results.ts';
import { errorsPage, settingsPage } from '../../schemas/index.ts';

/** What a file should be, given what it is. */
const PAGES: Record<string, (found: string) => string> = {
  'docs/settings.md': settingsPage,
  'docs/errors.md': errorsPage,
  'README.md': (found) =>
    found.replace(
      /(<!-- npm run bench -->\n)[\s\S]*?\n?(<!-- end -->)/,
      (_, begin: string, end: string) => `${begin}${resultsTable(readResults())}\n${end}`,
    ),
};
const check = process.argv.includes('--check');
for (const [name, page] of Object.entries(PAGES)) {
  const path = fileURLToPath(new URL(`../../${name}`, import.meta.url));
  const found = existsSync(path) ? readFileSync(path, 'utf8') : '';
  const wanted = page(found);
  if (found === wanted) continue;
  if (!check) writeFileSync(path, wanted);
  else {
    process.stderr.write(`${name} is not what the code says: npm run docs\n`);
    process.exitCode = 1;
  }
}
