/**
 * One cell of a CSV file (RFC 4180). A text that a spreadsheet would read as a formula gets a quote mark before it;
 * numbers stay.
 */
export function csvCell(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) && !/^-?\d+(\.\d+)?$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
