import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RateLimits, type ScanContext, ScanMemory, scanBody } from '../../ingest/index.ts';
import { decodeEvent, EVENT_SCHEMA_V1, encodeEvent, TidemarkError } from '../../schemas/index.ts';

const NONE = { free: null, standard: null, enterprise: null, discovered: null };
const context: ScanContext = {
  form: 'log',
  principal: { keyId: 'k', tenant: null, scopes: new Set(['ingest']) },
  settings: {
    maxAgeMs: 1e15,
    maxAheadMs: 1e15,
    unknownTenants: 'create',
    rates: NONE,
    appendDeadlineMs: 1,
    lagLimit: 1,
    spread: new Map(),
  },
  partitions: 4,
  limits: new RateLimits(NONE),
  now: Date.now(),
  backfill: false,
  tenant: () => null,
  placed: () => null,
};

const name = fc
  .string({ minLength: 1, maxLength: 8, unit: 'grapheme' })
  .filter(
    (text) =>
      !/[\p{Cc}.]/u.test(text) && !['__proto__', 'constructor', 'prototype'].includes(text) && text.isWellFormed(),
  );
const text = fc
  .string({ unit: 'grapheme', maxLength: 20 })
  .filter((value) => !value.includes('\0') && value.isWellFormed());
const number = fc.oneof(
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e15, max: 1e15 }).map((value) => Number(value.toFixed(6))),
);
const scalar = fc.oneof(text, number, fc.boolean());
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    scalar,
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(name, tie('value'), { maxKeys: 4 }),
  ),
}));

/** What JSON.parse and a plain walk make of the same object. */
function flatten(prefix: string, data: unknown, into: Map<string, unknown>): void {
  if (data === null || Array.isArray(data)) return;
  if (typeof data === 'object')
    for (const [key, inner] of Object.entries(data)) flatten(`${prefix}.${key}`, inner, into);
  else into.set(prefix, data);
}

test('P1: whatever JSON an event holds, the log has the same attributes and the same JSON', () => {
  const type = avsc.Type.forSchema(EVENT_SCHEMA_V1);
  const members = fc.dictionary(
    name.filter(
      (key) =>
        !['timestamp', 'customer_id', 'idempotency_key', 'request_id', 'user_id', 'type', 'source'].includes(key),
    ),
    value,
    { maxKeys: 8 },
  );
  fc.assert(
    fc.property(
      members,
      text.filter((key) => key !== '' && !/\p{Cc}/u.test(key)),
      fc.boolean(),
      (data, key, indent) => {
        const line = { ...data, timestamp: '2026-01-26T21:30:45.123Z', customer_id: 'acme', idempotency_key: key };
        const { batches, rejected } = scanBody(Buffer.from(JSON.stringify(line, null, indent ? 2 : 0)), context);
        expect(rejected).toEqual([]);
        const bytes = Buffer.from(batches[0]?.bytes ?? []);
        const event = decodeEvent(bytes);
        const expected = new Map<string, unknown>();
        for (const [member, inner] of Object.entries(data)) flatten(member, inner, expected);
        const got = new Map(
          [...(event?.attributes ?? [])].map(([attribute, found]) => [
            attribute,
            found.kind === 'decimal' ? Number(found.value) : found.value,
          ]),
        );
        expect(got.size).toBe(Math.min(64, expected.size));
        for (const [attribute, found] of got)
          expect(found).toEqual(expected.get(attribute) === 0 ? 0 : expected.get(attribute));
        const kept = Object.fromEntries(
          Object.entries(data).filter(([, inner]) => inner === null || typeof inner === 'object'),
        );
        expect(JSON.parse(event?.data ?? '{}')).toEqual(JSON.parse(JSON.stringify(kept)));
        // The same bytes by the plain codec, and readable by avsc.
        if (event !== undefined) expect(encodeEvent(event).equals(bytes)).toBe(true);
        expect(type.fromBuffer(bytes.subarray(10)).idempotency_key).toBe(key);
      },
    ),
    { numRuns: 400, endOnFailure: true },
  );
});

test('P6: no bytes, however broken, make anything but accepted events, rejections or invalid_json', () => {
  const good =
    '{"timestamp":"2026-01-26T21:30:45Z","customer_id":"a","request_id":"r","n":{"x":[1,"\\u0041"]},"v":1.5e2}';
  const mutation = fc.record({ at: fc.nat(good.length * 2), byte: fc.nat(255), cut: fc.boolean() });
  fc.assert(
    fc.property(
      fc.array(mutation, { minLength: 1, maxLength: 5 }),
      fc.constantFrom('log', 'ndjson', 'cloudevents'),
      (mutations, form) => {
        let body = Buffer.from(form === 'ndjson' ? `${good}\n${good}` : `[${good},${good}]`);
        for (const { at, byte, cut } of mutations) {
          if (cut) body = body.subarray(0, at);
          else if (at < body.length) body[at] = byte;
        }
        try {
          const { accepted, rejected, batches } = scanBody(body, { ...context, form });
          expect(batches.reduce((sum, batch) => sum + batch.count, 0)).toBe(accepted);
          expect(new Set(rejected.map(({ index }) => index)).size).toBe(rejected.length);
        } catch (error) {
          expect(error).toBeInstanceOf(TidemarkError);
          expect(error).toMatchObject({ code: 'invalid_json' });
        }
      },
    ),
    { numRuns: 3_000, endOnFailure: true },
  );
});

test('P6: an event is read alike, whatever other events its body holds, and whatever bodies came before', () => {
  const names = [
    '"a"',
    '"ab"',
    '"\\u0061"',
    '"a.b"',
    '""',
    '"__proto__"',
    '"\\u0000"',
    '"customer_id"',
    '"user_id"',
    '"source"',
    '"type"',
    '"subject"',
    '"data"',
    '"data_base64"',
    '"a" ',
  ];
  const scalars = ['1', '"x"', 'null', '{"a":2,"user_id":"u","ab":{"a":3}}', '"acme"', '[1]'];
  // More than are remembered, and one that is too long to be.
  const others = [...Array.from({ length: 200 }, (_, i) => `"n${i}"`), `"${'long'.repeat(20)}"`];
  const member = fc
    .tuple(
      fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...names) }, fc.constantFrom(...others)),
      fc.constantFrom(...scalars),
    )
    .map(([key, held]) => `${key}:${held}`);
  const event = fc.array(member, { maxLength: 6 });
  // Few shapes, each many times: what is remembered of one event is used for the next.
  const events = fc
    .uniqueArray(event, { minLength: 1, maxLength: 4 })
    .chain((shapes) => fc.array(fc.constantFrom(...shapes), { minLength: 1, maxLength: 12 }));
  const kept = new ScanMemory();
  const scan = (texts: string[], form: 'log' | 'cloudevents', memory?: ScanMemory) => {
    const scanned = scanBody(Buffer.from(`[${texts.join(',')}]`), { ...context, form }, memory);
    const { batches, rejected } = scanned;
    const own = batches.find(({ partition }) => partition === batches[0]?.partition);
    return { bytes: Buffer.from(own?.bytes ?? []).toString('hex'), rejected };
  };
  fc.assert(
    fc.property(events, fc.constantFrom('log', 'cloudevents'), (shapes, form) => {
      const head =
        form === 'log'
          ? '"timestamp":"2026-01-26T21:30:45Z","idempotency_key":"k"'
          : '"specversion":"1.0","id":"i","time":"2026-01-26T21:30:45Z","type":"t"';
      const whose = form === 'log' ? '"customer_id":"acme"' : '"source":"s","subject":"acme"';
      const texts = shapes.map((members) => `{${[head, ...members, whose].join(',')}}`);
      const alone = texts.map((text) => scan([text], form));
      const together = scan(texts, form, kept);
      const byTenant = texts.map((_, i) => alone[i]).filter((one) => one?.rejected.length === 0);
      expect(together.rejected.map(({ index, code, field }) => [index, code, field])).toEqual(
        alone.flatMap(({ rejected }, i) => rejected.map(({ code, field }) => [i, code, field])),
      );
      expect(together.bytes).toBe(byTenant.map((one) => one?.bytes).join(''));
    }),
    { numRuns: 1_500, endOnFailure: true },
  );
});
