/** A statement's number as people write it. */
export const numberOf = (serial: number): string => `S-${String(serial).padStart(6, '0')}`;

/** @returns undefined when it is none */
export function serialOf(number: string): number | undefined {
  const match = /^(?:S-)?0*([1-9]\d{0,14})$/i.exec(number);
  return match === null ? undefined : Number(match[1]);
}
