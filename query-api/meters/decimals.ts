/** A decimal literal cut to so many significant digits, half up. */
export function significant(literal: string, digits: number): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(literal);
  if (match === null) return literal;
  const [, sign = '', integer = '', fraction = ''] = match;
  const all = `${integer}${fraction}`;
  const first = all.search(/[1-9]/);
  if (first < 0) return '0';
  const cut = first + digits;
  if (cut >= all.length) return trim(sign, all, fraction.length);
  const kept = BigInt(all.slice(0, cut)) + ((all[cut] ?? '0') >= '5' ? 1n : 0n);
  const dropped = all.length - cut;
  const scale = fraction.length - dropped;
  if (scale < 0) return `${sign}${kept}${'0'.repeat(-scale)}`;
  return trim(sign, kept.toString(), scale);
}

function trim(sign: string, digits: string, scale: number): string {
  const padded = digits.padStart(scale + 1, '0');
  const integer = scale === 0 ? padded : padded.slice(0, -scale);
  const fraction = scale === 0 ? '' : padded.slice(-scale).replace(/0+$/, '');
  return `${sign}${integer.replace(/^0+(?=\d)/, '')}${fraction === '' ? '' : `.${fraction}`}`;
}

/** A double as a plain decimal literal. */
export function plainNumber(value: number): string {
  const text = String(value);
  return text.includes('e') ? value.toFixed(18).replace(/\.?0+$/, '') : text;
}
