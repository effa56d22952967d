/** Events of every kind over some days, and a meter of every aggregation that counts them. */
import { AGGREGATIONS, type AttributeValue, type PlainEvent, VOID_TYPE } from '../../schemas/index.ts';
import { event } from './processors.ts';

export const DAY = 86_400_000;
export const FIRST = Date.UTC(2026, 0, 1);
export const DAYS = 5;

/** Numbers of 30 digits, nested and dotted names, text that is a number, an escaped name's value, nothing. */
export function eventOf(i: number, day = i % DAYS): PlainEvent {
  const tokens = i % 5 === 0 ? `${10_000_000_000_000 + i}.123456789012345678` : String(i % 70);
  const attributes = new Map<string, AttributeValue>([
    ['model', { kind: 'string', value: `m"${i % 3}\\é` }],
    ['usage.tokens', { kind: 'decimal', value: tokens }],
    ['delta', { kind: 'long', value: i % 2 === 0 ? 1 : -1 }],
    ['ok', { kind: 'boolean', value: i % 4 === 0 }],
    ['tokens_consumed', { kind: 'decimal', value: `${i}.000000000000000001` }],
    ['duration_ms', i % 11 === 0 ? { kind: 'string', value: '12.5' } : { kind: 'long', value: i }],
  ]);
  if (i % 7 === 0) attributes.delete('usage.tokens');
  return event(`k${i}`, {
    tenant: `t${i % 4}`,
    type: i % 3 === 0 ? 'chat' : 'call',
    timestamp: FIRST + day * DAY + ((i * 7_919_773) % DAY),
    user_id: i % 6 === 0 ? null : `u${i % 9}`,
    attributes,
    data:
      i % 7 === 0
        ? `{"usage":{"tokens":null,"x":[1,"]}"]}}`
        : `{"list":["{",{"tokens":1}],"usage":{"tokens":${tokens}}}`,
  });
}
export const voidOf = (i: number): PlainEvent =>
  event(`k${i}`, {
    tenant: `t${i % 4}`,
    type: VOID_TYPE,
    attributes: new Map([['tidemark.actor', { kind: 'string', value: 'somebody' }]]),
  });

export const definitions = AGGREGATIONS.map((aggregation, i) => ({
  eventType: i % 2 === 0 ? '*' : 'call',
  aggregation,
  ...(aggregation === 'COUNT'
    ? {}
    : {
        valueProperty:
          aggregation === 'UNIQUE_COUNT'
            ? '$.user_id'
            : (['$.usage.tokens', '$.tokens_consumed', '$.duration_ms'][i % 3] ?? ''),
      }),
  groupBy: i % 3 === 0 ? {} : { model: '$.model', ok: '$.ok' },
  filters: aggregation === 'MAX' ? [{ property: '$.usage.tokens', op: 'lt', value: 60 }] : [],
}));
