import type { ProtocolRequest } from 'kafkajs/src/cluster/index.js';
import Encoder from 'kafkajs/src/protocol/encoder.js';

export interface ProducedPartition {
  partition: number;
  /** one record batch */
  batch: Buffer;
}

const PRODUCE = 0;
const ACKS_ALL = -1;

/**
 * Produce, version 7 (Kafka 2.1 to 4.x), acks=all.
 * @param timeoutMs how long the leader waits for the in-sync replicas
 * @returns each partition's error code, 0 for none
 */
export function produceRequest(
  topic: string,
  partitions: readonly ProducedPartition[],
  timeoutMs: number,
): ProtocolRequest<Map<number, number>> {
  return {
    request: {
      apiKey: PRODUCE,
      apiVersion: 7,
      apiName: 'Produce',
      encode: async () => {
        const size = partitions.reduce((sum, { batch }) => sum + batch.length + 8, 64 + topic.length * 4);
        const out = new Encoder(size)
          .writeString(null)
          .writeInt16(ACKS_ALL)
          .writeInt32(timeoutMs)
          .writeInt32(1)
          .writeString(topic)
          .writeInt32(partitions.length);
        for (const { partition, batch } of partitions)
          out.writeInt32(partition).writeInt32(batch.length).writeBuffer(batch);
        return out;
      },
    },
    response: {
      decode: async (payload) => {
        const codes = new Map<number, number>();
        let at = 4;
        for (let topics = payload.readInt32BE(0); topics > 0; topics--) {
          at += 2 + payload.readInt16BE(at);
          const count = payload.readInt32BE(at);
          at += 4;
          for (let i = 0; i < count; i++) {
            codes.set(payload.readInt32BE(at), payload.readInt16BE(at + 4));
            at += 30; // partition, code, base offset, append time, log start offset
          }
        }
        return { clientSideThrottleTime: payload.readInt32BE(at), data: codes };
      },
      parse: async ({ data }) => data,
    },
  };
}
