/**
 * A peer that is gone without a word (a cable, a firewall, a frozen machine) is waited for until TCP gives up, a quarter
 * of an hour. Here a connection that has asked something and gets no byte for too long is given up; an idle one is left alone.
 */
import { Socket } from 'node:net';
import type { ClientBase } from 'pg';

/** @param ms without a byte either way, while a statement (COPY included) is under way */
export function giveUpOnSilence(client: ClientBase, ms: number): void {
  const stream = streamOf(client);
  if (stream === undefined) return;
  stream.on('timeout', () => stream.destroy(new Error(`Connection terminated: not a byte in ${ms} ms`)));
  const write = stream.write;
  // Whatever is written wants an answer; pg says `drain` when all have come.
  stream.write = function (this: Socket, ...given: Parameters<Socket['write']>) {
    if (stream.timeout !== ms) stream.setTimeout(ms);
    return write.apply(this, given);
  } as Socket['write'];
  client.on('drain', () => stream.setTimeout(0));
}

/** pg's own socket, TLS or not; it has no public name. */
function streamOf(client: ClientBase): Socket | undefined {
  const connection: unknown = 'connection' in client ? client.connection : undefined;
  if (typeof connection !== 'object' || connection === null || !('stream' in connection)) return undefined;
  return connection.stream instanceof Socket ? connection.stream : undefined;
}
