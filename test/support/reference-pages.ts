/** Writes the manual's pages that come from code; with `--check` only says whether they are current. Run by `npm run docs`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { errorsPage, settingsPage } from '../../schemas/index.ts';

const PAGES = { 'docs/settings.md': settingsPage, 'docs/errors.md': errorsPage };
const check = process.argv.includes('--check');
for (const [name, page] of Object.entries(PAGES)) {
  const path = fileURLToPath(new URL(`../../${name}`, import.meta.url));
  let found = '';
  try {
    found = readFileSync(path, 'utf8');
  } catch {
    // Not written yet.
  }
  if (found === page()) continue;
  if (!check) writeFileSync(path, page());
  else {
    process.stderr.write(`${name} is not what the code says: npm run docs\n`);
    process.exitCode = 1;
  }
}
