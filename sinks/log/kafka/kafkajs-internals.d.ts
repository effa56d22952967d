/**
 * What we use of kafkajs below its public API: its connections (TLS, SASL, metadata, coordinators). Record batches are
 * read and written by us, and group membership is ours, because both decide what the processors may do and when.
 * kafkajs 2.2.4 is pinned in package.json; these shapes are its own.
 */
declare module 'kafkajs/src/cluster/index.js' {
  import type { ISocketFactory, logger, RetryOptions, SASLOptions } from 'kafkajs';
  import type { Encoder } from 'kafkajs/src/protocol/encoder.js';

  export interface ProtocolRequest<Response> {
    request: { apiKey: number; apiVersion: number; apiName: string; encode(): Promise<Encoder> };
    response: {
      decode(payload: Buffer): Promise<{ clientSideThrottleTime: number; data: Response }>;
      parse(decoded: { data: Response }): Promise<Response>;
    };
    requestTimeout?: number;
    logResponseError?: boolean;
  }

  export interface GroupMember {
    memberId: string;
    memberMetadata: Buffer;
  }

  export interface Broker {
    readonly connectionPool: { send<Response>(request: ProtocolRequest<Response>): Promise<Response> };
    heartbeat(of: { groupId: string; groupGenerationId: number; memberId: string }): Promise<unknown>;
    joinGroup(of: {
      groupId: string;
      sessionTimeout: number;
      rebalanceTimeout: number;
      memberId: string;
      groupProtocols: { name: string; metadata: Buffer }[];
    }): Promise<{ generationId: number; leaderId: string; memberId: string; members: GroupMember[] }>;
    syncGroup(of: {
      groupId: string;
      generationId: number;
      memberId: string;
      groupAssignment: { memberId: string; memberAssignment: Buffer }[];
    }): Promise<{ memberAssignment: Buffer }>;
    leaveGroup(of: { groupId: string; memberId: string }): Promise<unknown>;
    offsetCommit(of: {
      groupId: string;
      groupGenerationId: number;
      memberId: string;
      topics: { topic: string; partitions: { partition: number; offset: string }[] }[];
    }): Promise<unknown>;
  }

  export default class Cluster {
    constructor(options: {
      logger: ReturnType<typeof logger>;
      socketFactory: ISocketFactory;
      brokers: string[];
      ssl?: object | undefined;
      sasl?: SASLOptions | undefined;
      clientId: string;
      connectionTimeout: number;
      authenticationTimeout: number;
      reauthenticationThreshold: number;
      requestTimeout: number;
      enforceRequestTimeout: boolean;
      metadataMaxAge: number;
      retry: RetryOptions;
      allowAutoTopicCreation: boolean;
      maxInFlightRequests: number | null;
      isolationLevel: number;
    });
    connect(): Promise<void>;
    disconnect(): Promise<void>;
    addTargetTopic(topic: string): Promise<void>;
    refreshMetadata(): Promise<void>;
    refreshMetadataIfNecessary(): Promise<void>;
    findBroker(of: { nodeId: number | string }): Promise<Broker>;
    findGroupCoordinator(of: { groupId: string }): Promise<Broker>;
    findTopicPartitionMetadata(topic: string): { partitionId: number; leader: number }[];
    fetchTopicsOffset(
      topics: { topic: string; partitions: { partition: number }[]; fromBeginning: boolean }[],
    ): Promise<{ topic: string; partitions: { partition: number; offset: string }[] }[]>;
  }
}

declare module 'kafkajs/src/protocol/encoder.js' {
  export interface Encoder {
    readonly buffer: Buffer;
    writeInt8(value: number): Encoder;
    writeInt16(value: number): Encoder;
    writeInt32(value: number): Encoder;
    writeInt64(value: number): Encoder;
    writeString(value: string | null): Encoder;
    writeBuffer(value: Buffer): Encoder;
  }
  const KafkaEncoder: { new (initialSize?: number): Encoder };
  export default KafkaEncoder;
}

declare module 'kafkajs/src/protocol/error.js' {
  /** @returns an error with `type` (Kafka's name of it) and `retriable` */
  export function createErrorFromCode(code: number): Error & { type: string; retriable: boolean };
}

declare module 'kafkajs/src/network/requestQueue/index.js' {
  export default class RequestQueue {
    pending: unknown[];
    throttledUntil: number;
    scheduleCheckPendingRequests(): void;
  }
}
