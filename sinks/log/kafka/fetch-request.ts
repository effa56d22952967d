import type { ProtocolRequest } from 'kafkajs/src/cluster/index.js';
import Encoder from 'kafkajs/src/protocol/encoder.js';

export interface WantedPartition {
  partition: number;
  offset: number;
  maxBytes: number;
}

export interface FetchedPartition {
  partition: number;
  /** Kafka's error code, 0 for none */
  code: number;
  aborted: { producerId: bigint; firstOffset: number }[];
  /** whole record batches and perhaps the beginning of one more; a view into the response */
  records: Buffer;
  /** size of the whole response */
  responseBytes: number;
}

const FETCH = 1;
const READ_COMMITTED = 1;

/** Fetch, version 11 (Kafka 2.3 to 4.x), without a session. @param waitMs how long the broker waits for a first byte */
export function fetchRequest(
  topic: string,
  wanted: readonly WantedPartition[],
  waitMs: number,
  requestTimeoutMs: number,
): ProtocolRequest<FetchedPartition[]> {
  return {
    requestTimeout: requestTimeoutMs,
    request: {
      apiKey: FETCH,
      apiVersion: 11,
      apiName: 'Fetch',
      encode: async () => {
        const out = new Encoder()
          .writeInt32(-1) // replica
          .writeInt32(waitMs)
          .writeInt32(1) // min bytes
          .writeInt32(wanted.reduce((sum, one) => sum + one.maxBytes, 0))
          .writeInt8(READ_COMMITTED)
          .writeInt32(0) // session id
          .writeInt32(-1) // session epoch
          .writeInt32(1)
          .writeString(topic)
          .writeInt32(wanted.length);
        for (const { partition, offset, maxBytes } of wanted)
          out.writeInt32(partition).writeInt32(-1).writeInt64(offset).writeInt64(-1).writeInt32(maxBytes);
        return out.writeInt32(0).writeString('');
      },
    },
    response: {
      decode: async (payload) => ({ clientSideThrottleTime: payload.readInt32BE(0), data: decodeFetch(payload) }),
      parse: async ({ data }) => data,
    },
  };
}

function decodeFetch(payload: Buffer): FetchedPartition[] {
  const found: FetchedPartition[] = [];
  let at = 10; // throttle time, error code, session id
  const topics = payload.readInt32BE(at);
  at += 4;
  for (let t = 0; t < topics; t++) {
    at += 2 + payload.readInt16BE(at);
    const partitions = payload.readInt32BE(at);
    at += 4;
    for (let p = 0; p < partitions; p++) {
      const partition = payload.readInt32BE(at);
      const code = payload.readInt16BE(at + 4);
      at += 30; // partition, code, high watermark, last stable offset, log start offset
      const aborted: FetchedPartition['aborted'] = [];
      const count = payload.readInt32BE(at);
      at += 4;
      for (let i = 0; i < count; i++) {
        aborted.push({ producerId: payload.readBigInt64BE(at), firstOffset: Number(payload.readBigInt64BE(at + 8)) });
        at += 16;
      }
      at += 4; // preferred read replica
      const length = Math.max(0, payload.readInt32BE(at));
      at += 4;
      found.push({
        partition,
        code,
        aborted,
        records: payload.subarray(at, at + length),
        responseBytes: payload.length,
      });
      at += length;
    }
  }
  return found;
}
