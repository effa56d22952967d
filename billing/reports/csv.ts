import type { ExportedLine } from '../statements/store.ts';

const COLUMNS = [
  'id',
  'statement',
  'line',
  'kind',
  'adjusts',
  'tenant',
  'subscription',
  'plan',
  'from',
  'to',
  'charge',
  'name',
  'meter',
  'group',
  'quantity',
  'events',
  'included',
  'billable',
  'unit_amount',
  'amount',
  'currency',
  'void',
] as const;

export const CSV_HEADER = `${COLUMNS.join(',')}\r\n`;

/** A line of a statement as a row (RFC 4180). */
export function csvRow(line: ExportedLine): string {
  const cells: Record<string, unknown> = { ...line, group: line.group === undefined ? '' : groupText(line.group) };
  return `${COLUMNS.map((name) => cell(cells[name])).join(',')}\r\n`;
}

export const groupText = (group: Readonly<Record<string, string | null>>): string =>
  Object.entries(group)
    .map(([name, value]) => `${name}=${value ?? ''}`)
    .join(' ');

/** A text that a spreadsheet would read as a formula gets a quote mark before it; numbers stay. */
function cell(value: unknown): string {
  const text = value === undefined || value === null ? '' : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && !/^-?\d+(\.\d+)?$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
