import { DateTime } from 'luxon';
import type { TierShare } from '../rating/index.ts';
import type { Head } from '../statements/assemble.ts';
import type { AdjustmentLine, ChargeLine, StatementLine } from '../statements/lines.ts';
import { groupText } from './csv.ts';

const STYLE = `
  :root { color-scheme: light; --ink: #1c2430; --soft: #667085; --rule: #d7dce3; --tint: #f5f7fa; }
  * { box-sizing: border-box; }
  body { margin: 0; background: #fff; color: var(--ink); font: 14px/1.5 system-ui, "Liberation Sans", Arial, sans-serif; }
  main { max-width: 820px; margin: 0 auto; padding: 48px 32px; }
  header { display: flex; justify-content: space-between; align-items: flex-start; gap: 24px; border-bottom: 2px solid var(--ink); padding-bottom: 20px; }
  h1 { margin: 0; white-space: nowrap; font-size: 26px; line-height: 1.2; letter-spacing: -.01em; }
  .state { display: inline-block; margin-top: 8px; padding: 1px 10px; border: 1px solid var(--rule); border-radius: 99px; font-size: 12px; }
  .state.void { color: #9b1c1c; border-color: #9b1c1c; }
  dl { display: grid; grid-template-columns: auto auto; gap: 2px 16px; margin: 0; text-align: right; }
  dt { color: var(--soft); } dd { margin: 0; }
  h2 { margin: 32px 0 8px; font-size: 15px; }
  table { width: 100%; border-collapse: collapse; }
  th { text-align: left; font-weight: 600; font-size: 12px; color: var(--soft); border-bottom: 1px solid var(--ink); padding: 6px 8px 6px 0; }
  td { vertical-align: top; border-bottom: 1px solid var(--rule); padding: 8px 8px 8px 0; }
  th.n, td.n { text-align: right; padding-right: 0; padding-left: 12px; white-space: nowrap; font-variant-numeric: tabular-nums; }
  tr.part td { border-bottom: 0; padding-top: 0; padding-bottom: 4px; font-size: 12px; color: var(--soft); }
  tr.part.end td { border-bottom: 1px solid var(--rule); padding-bottom: 8px; }
  tr.main.split td { border-bottom: 0; padding-bottom: 2px; }
  tr.term td { background: var(--tint); border-bottom: 1px solid var(--rule); padding: 8px; font-size: 12px; font-weight: 600; }
  tr.term small { display: inline; font-weight: 400; }
  small { display: block; color: var(--soft); font-size: 12px; }
  table.sum { width: 300px; margin: 24px 0 0 auto; } table.sum td { border: 0; padding: 4px 0; }
  table.sum tr.due td { border-top: 2px solid var(--ink); font-weight: 700; font-size: 16px; padding-top: 8px; }
  footer { margin-top: 40px; border-top: 1px solid var(--rule); padding-top: 12px; color: var(--soft); font-size: 11px; overflow-wrap: anywhere; }
  @media (max-width: 640px) { main { padding: 24px 16px; } header { flex-direction: column; } dl { text-align: left; }
    body { font-size: 12px; } th.n, td.n { white-space: normal; padding-left: 8px; } tr.part td { font-size: 11px; } table.sum { width: 100%; } }
  @media print { @page { size: A4; margin: 16mm; } main { max-width: none; padding: 0; } tr { break-inside: avoid; } thead { display: table-header-group; } }`;

/** A statement as a page that prints well, in pieces: there may be a million lines. */
export async function* statementPage(
  head: Head,
  lines: AsyncIterable<StatementLine> | Iterable<StatementLine>,
  closed: { checksum: string; void: { reason: string; reissued_as: string | null } | null } | null,
): AsyncGenerator<string> {
  const title = head.number === null ? 'Draft statement' : `Statement ${head.number}`;
  yield `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${text(title)} · ${text(head.tenant)}</title><style>${STYLE}</style></head><body><main>
<header><div><h1>${text(title)}</h1>${stateOf(head, closed?.void ?? null)}</div><dl>
${fact('Customer', head.tenant)}${fact('Period', `${day(head.period.from, head)} – ${day(head.period.to, head, -1)}`)}${fact('Time zone', head.period.time_zone)}${fact('Plan', [...new Set(head.terms.map((term) => `${term.name} (${term.plan})`))].join(', '))}${fact(head.number === null ? 'As of' : 'Issued', day(head.closed_at, head))}</dl></header>
<h2>Charges</h2><table><thead><tr><th>Charge</th><th class="n">Quantity</th><th class="n">Unit price</th><th class="n">Amount, ${text(head.currency)}</th></tr></thead><tbody>`;
  let adjusting = false;
  let segment = 0;
  let any = false;
  for await (const line of lines) {
    any = true;
    if (line.kind === 'charge' && line.segment !== segment) {
      segment = line.segment;
      if (head.terms.length > 1) yield termRow(line, head);
    }
    if (line.kind === 'adjustment' && !adjusting) {
      adjusting = true;
      yield `</tbody></table><h2>Adjustments of earlier statements</h2><table><thead><tr><th>Charge</th><th class="n">Quantity</th><th class="n">Was</th><th class="n">Amount, ${text(head.currency)}</th></tr></thead><tbody>`;
    }
    yield line.kind === 'charge' ? chargeRows(line, head) : adjustmentRows(line, head);
  }
  if (!any) yield `<tr class="end"><td colspan="4">Nothing is charged for this period.</td></tr>`;
  yield `</tbody></table><table class="sum"><tbody>${sum('Total', head.total, head)}${head.credits
    .map((one) => sum(`Prepaid credit ${one.grant}`, `-${one.amount}`, head))
    .join('')}${sum('Amount due', head.amount_due, head, 'due')}</tbody></table>
<footer>${closed === null ? 'A draft changes until its period is closed.' : `SHA-256 of the canonical JSON: ${text(closed.checksum)}`}<br>Counted up to log positions ${text(head.positions.map((one) => `${one.topic}/${one.partition}: ${one.next}`).join(', ') || 'none')}.</footer></main></body></html>\n`;
}

function stateOf(head: Head, voided: { reason: string; reissued_as: string | null } | null): string {
  if (voided !== null)
    return `<span class="state void">Void: ${text(voided.reason)}${voided.reissued_as === null ? '' : `; see ${text(voided.reissued_as)}`}</span>`;
  if (head.number === null) return '<span class="state">Draft</span>';
  return head.replaces === null
    ? ''
    : `<span class="state">Replaces ${text(head.replaces)}: ${text(head.reason ?? '')}</span>`;
}

/** A plan's part of the period, above its charges. */
function termRow(line: ChargeLine, head: Head): string {
  const term = head.terms[line.segment - 1];
  const { proration } = line;
  const share =
    proration === undefined
      ? ''
      : `; ${digits(String(proration.seconds))} of ${digits(String(proration.of))} seconds of the period`;
  return `<tr class="term"><td colspan="4">${text(term?.name ?? line.plan)} <small>${text(`${moment(line.from, head)} – ${moment(line.to, head)}${share}`)}</small></td></tr>`;
}

const QUIET = ['rounding', 'proration'];

function chargeRows(line: ChargeLine, head: Head): string {
  const { proration } = line;
  const isAlone = head.terms.length === 1;
  const notes = [
    line.group === undefined ? '' : groupText(line.group),
    proration === undefined || !isAlone
      ? ''
      : `${digits(String(proration.seconds))} of ${digits(String(proration.of))} seconds of the period`,
    line.included === undefined || line.included === '0' ? '' : `${digits(line.included)} included`,
    line.events === undefined ? '' : `${digits(line.events)} events`,
    ...line.steps.slice(1).flatMap((step) => (QUIET.includes(step.rule) ? [] : [stepText(step)])),
  ].filter((note) => note !== '');
  const tiers = line.tiers ?? [];
  const parts =
    tiers.length > 1 || tiers.some((tier) => tier.flat_amount !== undefined)
      ? tiers.map((tier, i) => tierRow(tier, i === tiers.length - 1)).join('')
      : '';
  return `<tr class="main${parts === '' ? '' : ' split'}"><td>${text(titleOf(line))}${notes.map((note) => `<small>${text(note)}</small>`).join('')}</td><td class="n">${line.model === 'flat' ? '' : digits(line.quantity)}</td><td class="n">${text(unitPrice(line))}</td><td class="n">${digits(line.amount)}</td></tr>${parts}`;
}

const titleOf = (line: { name?: string; meter: string | null; charge: string }): string =>
  line.name ?? line.meter ?? `Charge ${line.charge}`;

const stepText = (step: ChargeLine['steps'][number]): string =>
  `${step.rule.replace('_', ' ')}${step.given === undefined ? '' : ` ${short(step.given)}${step.rule === 'discount_percent' ? ' %' : ''}`} → ${short(step.amount)}`;

/** Long fractions of prorations are cut for the eye; the JSON has them whole. */
const short = (value: string): string => digits(value.replace(/(\.\d{6})\d+$/, '$1…'));
/** Thousands apart, in the part before the point. */
const digits = (value: string): string =>
  value.replace(/^(-?)(\d+)/, (_, sign: string, whole: string) => `${sign}${whole.replace(/\B(?=(\d{3})+$)/g, ',')}`);

function unitPrice(line: ChargeLine): string {
  if (line.tiers !== undefined) return line.tiers.length === 1 ? (line.tiers[0]?.unit_amount ?? '') : 'tiers';
  if (line.package_size !== undefined) return `${line.package_amount} per ${line.package_size}`;
  if (line.rate_percent !== undefined)
    return `${line.rate_percent} %${line.fixed_amount === undefined ? '' : ` + ${line.fixed_amount} an event`}`;
  return line.unit_amount ?? '';
}

const tierRow = (tier: TierShare, isLast: boolean): string =>
  `<tr class="part${isLast ? ' end' : ''}"><td>above ${digits(tier.from)}${tier.up_to === null ? '' : ` up to ${digits(tier.up_to)}`}${tier.flat_amount === undefined ? '' : `, flat ${text(tier.flat_amount)}`}</td><td class="n">${short(tier.quantity)}</td><td class="n">${text(tier.unit_amount)}</td><td class="n">${text(short(tier.amount))}</td></tr>`;

function adjustmentRows(line: AdjustmentLine, head: Head): string {
  const notes = [
    `adjusts ${line.adjusts}, ${moment(line.from, head)} – ${moment(line.to, head)}`,
    line.group === undefined ? '' : groupText(line.group),
    `now ${digits(line.is.quantity)} for ${digits(line.is.amount)}`,
  ].filter((note) => note !== '');
  return `<tr class="main"><td>${text(titleOf(line))}${notes.map((note) => `<small>${text(note)}</small>`).join('')}</td><td class="n">${signed(line.quantity)}</td><td class="n">${digits(line.was.quantity)} for ${digits(line.was.amount)}</td><td class="n">${signed(line.amount)}</td></tr>`;
}

const signed = (value: string): string => `${/^[-0]*[.0]*$|^-/.test(value) ? '' : '+'}${digits(value)}`;
const fact = (name: string, value: string): string => `<dt>${text(name)}</dt><dd>${text(value)}</dd>`;
const sum = (name: string, amount: string, head: Head, kind = ''): string =>
  `<tr class="${kind}"><td>${text(name)}</td><td class="n">${digits(amount)} ${text(head.currency)}</td></tr>`;

/** A day of the customer's calendar; the end of a period is shown as the last moment in it. */
const day = (at: string, head: Head, shiftMs = 0): string =>
  DateTime.fromMillis(Date.parse(at) + shiftMs, { zone: head.period.time_zone }).toFormat('d LLL yyyy', {
    locale: 'en',
  });
const moment = (at: string, head: Head): string =>
  DateTime.fromMillis(Date.parse(at), { zone: head.period.time_zone }).toFormat('d LLL yyyy HH:mm', { locale: 'en' });

/** HTML text: names come from events and people. */
const text = (value: string): string => value.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
