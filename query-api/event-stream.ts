import { once } from 'node:events';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** One server-sent event (HTML standard, 9.2). */
export interface ServerSentEvent {
  /** what a reader sends back as `Last-Event-ID` to go on after it */
  id: number;
  event: string;
  data: object;
}

/** Comments keep proxies from closing a silent stream. */
const KEEP_ALIVE_MS = 15_000;

/**
 * Answers with a stream of events until `source` ends, the reader leaves, or the server stops.
 * @param source gets a signal that fires when nobody reads any more
 */
export async function sendEventStream(
  request: FastifyRequest,
  reply: FastifyReply,
  stopping: AbortSignal,
  source: (signal: AbortSignal) => AsyncIterable<ServerSentEvent>,
): Promise<void> {
  const gone = new AbortController();
  request.raw.once('close', () => gone.abort());
  reply.raw.once('close', () => gone.abort());
  const signal = AbortSignal.any([gone.signal, stopping]);
  reply.hijack();
  const { raw } = reply;
  raw.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    // A connection that turned idle only now would hold up the end of a stopping server.
    connection: 'close',
    'x-accel-buffering': 'no',
    'x-request-id': request.id,
  });
  raw.write('retry: 1000\n\n');
  const keepAlive = setInterval(() => raw.write(': \n\n'), KEEP_ALIVE_MS);
  try {
    for await (const { id, event, data } of source(signal)) {
      if (signal.aborted) break;
      // A key that was revoked since sees no more.
      await request.authorize('read');
      const taken = raw.write(`id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
      // A slow reader holds up its own source, nothing else: what it has not taken is at most one event.
      if (!taken) await once(raw, 'drain', { signal }).catch(() => undefined);
    }
  } catch (error) {
    // The headers are out: the reader comes back and goes on where it was, if it still may.
    request.log.warn({ err: error }, 'event stream cut off');
  } finally {
    clearInterval(keepAlive);
    raw.end();
  }
}

/** The number of the last event that a reader has seen; 0 for none. */
export function lastEventId(request: FastifyRequest): number {
  const query = request.query;
  const given =
    request.headers['last-event-id'] ??
    (typeof query === 'object' && query !== null && 'last_event_id' in query ? query.last_event_id : undefined);
  const id = Number(given);
  return Number.isSafeInteger(id) && id > 0 ? id : 0;
}
