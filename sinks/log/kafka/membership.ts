/**
 * Membership of the consumer group: the classic protocol with eager rebalancing (KIP-62), on kafkajs's requests. It is
 * ours because of one promise: before this member joins again, every owner has finished or abandoned its batch.
 */
import { AssignerProtocol } from 'kafkajs';
import type { Broker, GroupMember } from 'kafkajs/src/cluster/index.js';
import { pause } from '../pause.ts';
import type { KafkaClient } from './client.ts';
import type { LogCounters } from './counters.ts';
import type { KafkaOptions } from './options.ts';

type Handler = (partition: number, revoked: AbortSignal) => Promise<void>;

interface Held {
  controller: AbortController;
  done: Promise<void>;
  /** `done` has settled */
  finished: boolean;
}

interface Membership {
  memberId: string;
  generation: number;
}

const PROTOCOL = 'tidemark-round-robin';
const BACKOFF_MS = [50, 100, 250, 500, 1_000];
/** How long leaving waits for a join that is under way, so that no member is left behind that the others wait for. */
const LEAVE_WITHIN_MS = 3_000;
/** A hint that is not taken by then is not worth waiting for. */
const HINT_WITHIN_MS = 1_000;

export class GroupMembership {
  readonly #client: KafkaClient;
  readonly #options: KafkaOptions;
  readonly #counters: LogCounters;
  readonly #handler: Handler;
  readonly #held = new Map<number, Held>();
  readonly #hints = new Map<number, number>();
  readonly #leaving = new AbortController();
  #membership: Membership = { memberId: '', generation: -1 };
  #heardAt = performance.now();
  #failures = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(client: KafkaClient, options: KafkaOptions, counters: LogCounters, handler: Handler) {
    this.#client = client;
    this.#options = options;
    this.#counters = counters;
    this.#handler = handler;
  }

  /** Joins, and stays until `leave`. */
  start(): void {
    this.#running = this.#run();
  }

  /** Everything below `offset` of a partition is in the database; told to Kafka with the next heartbeat. */
  hint(partition: number, offset: number): void {
    this.#hints.set(partition, offset);
  }

  /** Stops every owner, tells Kafka how far they came, leaves the group. */
  async leave(): Promise<void> {
    this.#leaving.abort();
    await this.#revoke();
    const timer = setTimeout(() => this.#client.reset(), LEAVE_WITHIN_MS);
    await this.#running;
    clearTimeout(timer);
    const { memberId } = this.#membership;
    if (memberId === '') return;
    try {
      await this.#sendHints();
      await this.#ask((coordinator) => coordinator.leaveGroup({ groupId: this.#options.group, memberId }));
    } catch (error) {
      this.#options.logger.debug({ err: error }, 'Kafka: the group was left without a word; the session will end it');
    }
  }

  async #run(): Promise<void> {
    while (!this.#leaving.signal.aborted) {
      try {
        await this.#join();
        this.#failures = 0;
        await this.#stay();
      } catch (error) {
        await this.#recover(error);
      }
    }
    await this.#revoke();
  }

  /** Joins and takes the partitions that the group's leader gives out. */
  async #join(): Promise<void> {
    const { group: groupId, topic, sessionTimeoutMs, rebalanceTimeoutMs } = this.#options;
    const metadata = AssignerProtocol.MemberMetadata.encode({ version: 0, topics: [topic], userData: Buffer.alloc(0) });
    const joined = await this.#ask(
      (coordinator) =>
        coordinator.joinGroup({
          groupId,
          sessionTimeout: sessionTimeoutMs,
          rebalanceTimeout: rebalanceTimeoutMs,
          memberId: this.#membership.memberId,
          groupProtocols: [{ name: PROTOCOL, metadata }],
        }),
      Math.max(rebalanceTimeoutMs, sessionTimeoutMs) + this.#options.requestTimeoutMs,
    );
    const { memberId, generationId } = joined;
    this.#membership = { memberId, generation: generationId };
    if (this.#leaving.signal.aborted) return;
    const isLeader = joined.leaderId === memberId;
    const { memberAssignment } = await this.#ask((coordinator) =>
      coordinator.syncGroup({
        groupId,
        generationId,
        memberId,
        groupAssignment: isLeader ? this.#assign(joined.members) : [],
      }),
    );
    this.#heardAt = performance.now();
    this.#counters.rebalances++;
    const assigned = AssignerProtocol.MemberAssignment.decode(memberAssignment)?.assignment[topic] ?? [];
    this.#options.logger.info({ generation: generationId, partitions: assigned }, 'Kafka: group joined');
    if (this.#leaving.signal.aborted) return;
    for (const partition of assigned) this.#begin(partition);
    this.#counters.assigned = this.#held.size;
  }

  /** As the leader: partition p goes to member p modulo their number, in the order of their ids. */
  #assign(members: readonly GroupMember[]): { memberId: string; memberAssignment: Buffer }[] {
    const { topic, partitions } = this.#options;
    const ids = members.map(({ memberId }) => memberId).sort();
    return ids.map((memberId, m) => {
      const own = Array.from({ length: partitions }, (_, p) => p).filter((p) => p % ids.length === m);
      const assignment = own.length > 0 ? { [topic]: own } : {};
      return {
        memberId,
        memberAssignment: AssignerProtocol.MemberAssignment.encode({
          version: 0,
          assignment,
          userData: Buffer.alloc(0),
        }),
      };
    });
  }

  #begin(partition: number): void {
    const controller = new AbortController();
    const one: Held = { controller, finished: false, done: Promise.resolve() };
    one.done = (async () => {
      try {
        await this.#handler(partition, controller.signal);
      } catch (error) {
        this.#options.logger.error({ err: error, partition }, 'the owner of a partition failed');
      } finally {
        one.finished = true;
      }
    })();
    this.#held.set(partition, one);
  }

  /** Heartbeats until the group rebalances, or this member is told or must assume that it is none any more. */
  async #stay(): Promise<void> {
    const interval = Math.max(50, Math.min(1_000, this.#options.sessionTimeoutMs / 5));
    while (!this.#leaving.signal.aborted) {
      await pause(interval, this.#leaving.signal);
      if (this.#leaving.signal.aborted) return;
      const outcome = await this.#heartbeat();
      if (outcome === 'rebalance') return this.#rest();
      if (outcome === 'lost') return this.#lose('Kafka: this process is no member of the group any more');
      if (outcome === 'unheard' && performance.now() - this.#heardAt > this.#options.sessionTimeoutMs)
        return this.#lose('Kafka: not heard of for a session timeout');
      // An owner that gave up starts again, once it is certain that the partition still is ours.
      if (outcome === 'heard') for (const [partition, one] of this.#held) if (one.finished) this.#begin(partition);
      if (outcome === 'heard') await this.#sendHints();
    }
  }

  async #heartbeat(): Promise<'heard' | 'rebalance' | 'lost' | 'unheard'> {
    const { memberId, generation: groupGenerationId } = this.#membership;
    try {
      await this.#ask((coordinator) =>
        coordinator.heartbeat({ groupId: this.#options.group, groupGenerationId, memberId }),
      );
      this.#heardAt = performance.now();
      return 'heard';
    } catch (error) {
      const type = typeOf(error);
      if (type === 'REBALANCE_IN_PROGRESS') {
        this.#heardAt = performance.now();
        return 'rebalance';
      }
      if (type === 'UNKNOWN_MEMBER_ID' || type === 'ILLEGAL_GENERATION' || type === 'FENCED_INSTANCE_ID') return 'lost';
      return 'unheard';
    }
  }

  /** The group rebalances: owners stop while we keep in touch, then we join again under the same id. */
  async #rest(): Promise<void> {
    let stopped = false;
    const stopping = this.#revoke().then(() => {
      stopped = true;
    });
    const deadline = performance.now() + this.#options.rebalanceTimeoutMs;
    while (!stopped && performance.now() < deadline) {
      await Promise.race([stopping, pause(this.#options.sessionTimeoutMs / 5, this.#leaving.signal)]);
      if (!stopped && (await this.#heartbeat()) === 'lost') break;
    }
    await this.#sendHints();
    await stopping;
  }

  async #lose(why: string): Promise<void> {
    this.#options.logger.warn({}, why);
    this.#membership = { memberId: '', generation: -1 };
    await this.#revoke();
  }

  async #recover(error: unknown): Promise<void> {
    const type = typeOf(error);
    if (type === 'UNKNOWN_MEMBER_ID' || type === 'ILLEGAL_GENERATION')
      this.#membership = { memberId: '', generation: -1 };
    if (this.#failures === 3 || (this.#failures === 0 && type !== undefined && !TRANSIENT.has(type)))
      this.#options.logger.warn({ err: error }, 'Kafka: joining the group failed, trying again');
    await this.#revoke();
    await pause(BACKOFF_MS[Math.min(this.#failures++, BACKOFF_MS.length - 1)] ?? 1_000, this.#leaving.signal);
  }

  /** Stops every owner, and waits until each has finished or abandoned its batch. */
  async #revoke(): Promise<void> {
    const held = [...this.#held];
    for (const [, one] of held) one.controller.abort();
    await Promise.all(held.map(([, one]) => one.done));
    for (const [partition, one] of held) if (this.#held.get(partition) === one) this.#held.delete(partition);
    this.#counters.assigned = this.#held.size;
  }

  async #sendHints(): Promise<void> {
    if (this.#hints.size === 0) return;
    const partitions = [...this.#hints].map(([partition, offset]) => ({ partition, offset: String(offset) }));
    this.#hints.clear();
    const { group: groupId, topic } = this.#options;
    const { memberId, generation: groupGenerationId } = this.#membership;
    try {
      await this.#ask(
        (coordinator) =>
          coordinator.offsetCommit({ groupId, groupGenerationId, memberId, topics: [{ topic, partitions }] }),
        HINT_WITHIN_MS,
      );
      this.#counters.offsetCommits++;
    } catch (error) {
      this.#options.logger.debug({ err: error }, 'Kafka: the committed offsets could not be told');
    }
  }

  #ask<T>(question: (coordinator: Broker) => Promise<T>, withinMs = this.#options.requestTimeoutMs): Promise<T> {
    return this.#client.run(
      async (cluster) => question(await cluster.findGroupCoordinator({ groupId: this.#options.group })),
      withinMs,
    );
  }
}

/** Kafka's name of the error behind an error. */
function typeOf(error: unknown): string | undefined {
  for (let one = error; one instanceof Error; one = one.cause)
    if ('type' in one && typeof one.type === 'string') return one.type;
  return undefined;
}

/** Passing states of a coordinator, not worth a line in the log. */
const TRANSIENT = new Set([
  'GROUP_LOAD_IN_PROGRESS',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR_FOR_GROUP',
  'REBALANCE_IN_PROGRESS',
  'UNKNOWN_MEMBER_ID',
  'ILLEGAL_GENERATION',
]);
