import { TidemarkError } from '../../schemas/index.ts';

/**
 * Decimals of the minor unit, by ISO 4217 (list one, columns "Currency" and "Minor unit"). Not Intl's: CLDR gives what
 * cash is counted in, which differs (AFN, HUF, IDR, …). Codes without a minor unit (XAU, XDR, XXX, …) are left out.
 */
const BY_DECIMALS: Record<number, string> = {
  0: 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF',
  2: `AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF
    CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR
    ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR
    MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN
    SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG`,
  3: 'BHD IQD JOD KWD LYD OMR TND',
  4: 'CLF UYW',
};
const DECIMALS = new Map(
  Object.entries(BY_DECIMALS).flatMap(([decimals, codes]) =>
    codes.split(/\s+/).map((code): [string, number] => [code, Number(decimals)]),
  ),
);

/** Decimals of a currency's minor unit. @throws TidemarkError `invalid_currency` when it has none */
export function minorUnitOf(currency: string): number {
  const decimals = DECIMALS.get(currency);
  if (decimals === undefined)
    throw new TidemarkError(
      'invalid_currency',
      `"${currency}" is no currency of ISO 4217 with a minor unit (such as USD, JPY, KWD)`,
      { extensions: { field: 'currency' } },
    );
  return decimals;
}
