import { csvCell } from '../../schemas/index.ts';
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

const cell = (value: unknown): string => csvCell(value === undefined || value === null ? '' : String(value));
