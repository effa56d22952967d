/**
 * Who reads which partition: a table of members and a table of owners in the log's own environment, kept alive by
 * heartbeats. A partition moves only after its owner has released it, is dead, or has not been heard of for the
 * session timeout; an owner that slept through that is fenced out by the database whatever it believes.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Environment } from './environment.ts';
import { removeCommittedBlocks } from './retention.ts';

interface Member {
  id: string;
  host: string;
  pid: number;
  /** when the process began (clock ticks since boot), so that a reused pid is not taken for it; 0 where unknown */
  born: number;
  /** Unix ms of the last heartbeat */
  seen: number;
}

type Handler = (partition: number, revoked: AbortSignal) => Promise<void>;

interface Held {
  controller: AbortController;
  done: Promise<void>;
  /** `done` has settled */
  finished: boolean;
}

const RETENTION_EVERY_MS = 5_000;

/** Joins the group; `handler` runs for each partition that this member comes to own. */
export async function joinGroup(env: Environment, handler: Handler): Promise<{ leave(): Promise<void> }> {
  const me: Member = {
    id: randomUUID(),
    host: hostname(),
    pid: process.pid,
    born: bornAt(process.pid),
    seen: Date.now(),
  };
  const held = new Map<number, Held>();
  const interval = Math.max(50, Math.min(1_000, env.options.sessionTimeoutMs / 5));
  let leaving = false;
  let beating: Promise<void> = Promise.resolve();
  let retainedAt = Date.now();

  const start = (partition: number) => {
    const controller = new AbortController();
    const one: Held = { controller, finished: false, done: Promise.resolve() };
    one.done = (async () => {
      try {
        await handler(partition, controller.signal);
      } catch (error) {
        process.emitWarning(error instanceof Error ? error : String(error));
      } finally {
        one.finished = true;
      }
    })();
    held.set(partition, one);
  };

  const beat = async () => {
    const wanted = await env.root.transaction(() => assign(env, me, [...held.keys()], leaving));
    for (const [partition, one] of held) {
      if (wanted.keep.has(partition) && !leaving) {
        // The handler gave up, but the partition is still ours: it starts again.
        if (one.finished) start(partition);
      } else one.controller.abort();
      if (one.finished && one.controller.signal.aborted) {
        held.delete(partition);
        await env.root.transaction(() => release(env, me, partition));
      }
    }
    if (!leaving) for (const partition of wanted.take) if (!held.has(partition)) start(partition);
    if (Date.now() - retainedAt > RETENTION_EVERY_MS) {
      retainedAt = Date.now();
      for (const partition of held.keys()) await removeCommittedBlocks(env, partition);
    }
  };
  const guarded = () => {
    beating = beating.then(beat).catch((error) => process.emitWarning(error instanceof Error ? error : String(error)));
    return beating;
  };
  await guarded();
  const timer = setInterval(guarded, interval);

  return {
    leave: async () => {
      leaving = true;
      clearInterval(timer);
      await beating;
      for (const one of held.values()) one.controller.abort();
      await Promise.all([...held.values()].map((one) => one.done));
      await env.root.transaction(() => {
        for (const partition of held.keys()) release(env, me, partition);
        env.state.remove(['member', me.id]);
      });
      held.clear();
    },
  };
}

/** Within a transaction: heartbeat, bury the dead, and see which partitions are ours to keep and to take. */
function assign(env: Environment, me: Member, holding: readonly number[], leaving: boolean) {
  const now = Date.now();
  const members = new Map<string, Member>();
  for (const { value } of env.state.getRange({ start: ['member', ''], end: ['member', '\uffff'] })) {
    const member: unknown = value;
    if (!isMember(member) || member.id === me.id) continue;
    if (now - member.seen > env.options.sessionTimeoutMs || !isAlive(member)) env.state.remove(['member', member.id]);
    else members.set(member.id, member);
  }
  if (!leaving) {
    members.set(me.id, { ...me, seen: now });
    env.state.put(['member', me.id], { ...me, seen: now });
  }
  const ids = [...members.keys()].sort();
  const keep = new Set<number>();
  const take: number[] = [];
  for (let partition = 0; partition < env.options.partitions; partition++) {
    const owner: unknown = env.state.get(['owner', partition]);
    const target = ids[partition % ids.length];
    if (owner === me.id && holding.includes(partition)) {
      if (target === me.id) keep.add(partition);
      continue;
    }
    const free = typeof owner !== 'string' || owner === me.id || !members.has(owner);
    if (target === me.id && free) {
      env.state.put(['owner', partition], me.id);
      take.push(partition);
      // Lost and won again while asleep: the old handler stops first.
    }
  }
  return { keep, take };
}

function release(env: Environment, me: Member, partition: number): void {
  if (env.state.get(['owner', partition]) === me.id) env.state.remove(['owner', partition]);
}

function isMember(value: unknown): value is Member {
  return typeof value === 'object' && value !== null && 'id' in value && 'pid' in value && 'seen' in value;
}

function isAlive(member: Member): boolean {
  if (member.host !== hostname()) return true;
  try {
    process.kill(member.pid, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
  return bornAt(member.pid) === member.born;
}

/** Field 22 of /proc/<pid>/stat (proc(5)); 0 where there is no such file. */
function bornAt(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? 0);
  } catch {
    return 0;
  }
}
