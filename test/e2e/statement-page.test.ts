import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, chromium } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  billedPeriod,
  checkCharges,
  headOf,
  periodFrom,
  RatedLines,
  rateBilled,
  rulesOf,
  type Subscription,
  statementPage,
} from '../../billing/index.ts';
import { adjust } from '../../billing/statements/adjustments.ts';
import { requireCommand } from '../support/requirements.ts';

const folder = mkdtempSync(join(tmpdir(), 'tidemark-page-'));
let browser: Browser;

beforeAll(async () => {
  const command = requireCommand({ commands: ['chromium'], packages: ['chromium', 'fonts-liberation'] });
  browser = await chromium.launch({
    executablePath: execFileSync('which', [command], { encoding: 'utf8' }).trim(),
    args: [
      '--no-sandbox',
      '--headless',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}, 300_000);
afterAll(async () => {
  await browser.close();
  rmSync(folder, { recursive: true, force: true });
});

const plan = (key: string, amount: string) => ({
  key,
  version: 3,
  name: key === 'team' ? 'Team <script>alert(1)</script>' : 'Scale',
  currency: 'EUR',
  interval: 'month' as const,
  createdAt: new Date(0),
  charges: checkCharges([
    { name: 'Base fee', model: 'flat', amount },
    {
      name: 'Tokens',
      meter: 'tokens',
      group_by: ['model'],
      model: 'graduated',
      included: '100000',
      discount_percent: '10',
      tiers: [
        { up_to: '1000000', unit_amount: '0.00002', flat_amount: '1' },
        { up_to: null, unit_amount: '0.00001' },
      ],
    },
    { name: 'Calls', meter: 'api_calls', model: 'package', package_size: '1000', package_amount: '0.40' },
    {
      name: 'Payments',
      meter: 'payments',
      model: 'percentage',
      rate_percent: '2.9',
      fixed_amount: '0.30',
      maximum: '900',
    },
  ]),
});

async function write(groups: number): Promise<string> {
  const start = Date.parse('2026-02-28T23:00:00Z');
  const subscription: Subscription = {
    id: '00000000-0000-4000-8000-000000000001',
    tenantId: '00000000-0000-4000-8000-000000000002',
    customerId: 'Blåbær & Söhne "GmbH"',
    start,
    end: null,
    trialUntil: null,
    timeZone: 'Europe/Berlin',
    periods: 'anniversary',
    phases: [
      { from: start, plan: plan('team', '49') },
      { from: Date.parse('2026-03-17T10:20:30Z'), plan: plan('scale', '199') },
    ],
    closedUntil: start,
  };
  const period = periodFrom(rulesOf(subscription), start);
  if (period === undefined) throw new Error('no period');
  const billed = billedPeriod(subscription, period);
  const usage = (quantity: string, events: string, group: Record<string, string> = {}) => ({
    customerId: '',
    group,
    quantity,
    events,
  });
  const rows: Record<string, ReturnType<typeof usage>[]> = {
    tokens: Array.from({ length: groups }, (_, i) => usage(String(2_345_678 * (i + 1)), '0', { model: `model-${i}` })),
    api_calls: [usage('12345', '0')],
    payments: [usage('98765.43', '321')],
  };
  const charges = [...rateBilled(billed, (need) => rows[need.slug] ?? [], 2)];
  const lines = new RatedLines();
  for (const line of [...charges, ...adjust(41, new Map(), charges.slice(1, 2), 2)]) lines.add(line);
  const head = headOf(
    billed,
    lines,
    {
      number: 'S-000042',
      revision: 1,
      replaces: 'S-000040',
      reason: 'a file came late',
      positions: [{ topic: 'events', partition: 0, shard: 1, next: 123456 }],
      adjusted_since: '2026-02-01T00:00:00.000Z',
      closed_at: '2026-04-02T00:00:00.000Z',
    },
    () => [{ grant: 7, amount: '100.00' }],
  );
  let html = '';
  for await (const piece of statementPage(head, lines.read(), { checksum: 'ab'.repeat(32), void: null })) html += piece;
  const file = join(folder, `${groups}.html`);
  writeFileSync(file, html);
  return pathToFileURL(file).href;
}

test.each([1280, 390])(
  'a statement reads well on a screen %i wide: nothing runs out of it, no script runs',
  async (width) => {
    const page = await browser.newPage({ viewport: { width, height: 1000 } });
    let dialogs = 0;
    page.on('dialog', (dialog) => {
      dialogs++;
      void dialog.dismiss();
    });
    await page.goto(await write(3));
    if (process.env.PICTURES !== undefined)
      await page.screenshot({ path: `${process.env.PICTURES}/statement-${width}.png`, fullPage: true });
    expect(await page.title()).toBe('Statement S-000042 · Blåbær & Söhne "GmbH"');
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width);
    expect(await page.getByText('Adjustments of earlier statements').isVisible()).toBe(true);
    expect(await page.getByText('1 Mar 2026 – 31 Mar 2026').first().isVisible()).toBe(true);
    expect(dialogs).toBe(0);
    await page.close();
  },
);

test('a statement prints as a PDF of as many A4 pages as it needs', async () => {
  const page = await browser.newPage();
  await page.goto(await write(60));
  const pdf = await page.pdf({ preferCSSPageSize: true });
  if (process.env.PICTURES !== undefined) writeFileSync(`${process.env.PICTURES}/statement.pdf`, pdf);
  expect(pdf.subarray(0, 5).toString()).toBe('%PDF-');
  const pages = pdf.toString('latin1').match(/\/Type\s*\/Page\b/g)?.length ?? 0;
  expect(pages).toBeGreaterThan(3);
  // A4 in points
  expect(pdf.toString('latin1')).toMatch(/\/MediaBox\s*\[\s*0 0 59[45](\.\d+)? 84[12](\.\d+)?\s*\]/);
  await page.close();
});
