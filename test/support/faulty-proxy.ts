import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What happens to a request: it passes; is answered 503; its upload is cut; it takes long; a byte of the answer is changed. */
export type Mishap = 'pass' | 'error' | 'cut' | 'slow' | 'flip';

export interface FaultyProxy {
  url: string;
  /** decides for every request */
  decide: (request: { method: string; path: string }) => Mishap;
  /** requests that met a mishap */
  mishaps: number;
  close(): Promise<void>;
}

/** An HTTP proxy in front of `target`, as bad as the network can be. */
export async function startFaultyProxy(target: string): Promise<FaultyProxy> {
  const { hostname, port } = new URL(target);
  const proxy: FaultyProxy = { url: '', decide: () => 'pass', mishaps: 0, close: async () => undefined };
  const server = createServer((incoming: IncomingMessage, outgoing: ServerResponse) => {
    const mishap = proxy.decide({ method: incoming.method ?? '', path: incoming.url ?? '' });
    if (mishap !== 'pass') proxy.mishaps++;
    if (mishap === 'error') {
      incoming.resume();
      outgoing.writeHead(503, { 'content-type': 'application/xml' });
      outgoing.end('<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>');
      return;
    }
    if (mishap === 'cut') {
      // Some of the body is on its way already.
      incoming.once('data', () => incoming.socket.destroy());
      incoming.once('end', () => incoming.socket.destroy());
      return;
    }
    const { method, url: path, headers } = incoming;
    const onward = request({ hostname, port, method, path, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
      if (mishap !== 'flip') {
        answer.pipe(outgoing);
        return;
      }
      let isFirst = true;
      answer.on('data', (chunk: Buffer) => {
        if (isFirst) chunk[chunk.length >> 1] = (chunk[chunk.length >> 1] ?? 0) ^ 1;
        isFirst = false;
        outgoing.write(chunk);
      });
      answer.on('end', () => outgoing.end());
    });
    onward.on('error', () => outgoing.destroy());
    if (mishap === 'slow') setTimeout(() => incoming.pipe(onward), 300);
    else incoming.pipe(onward);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  proxy.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  proxy.close = () =>
    new Promise((resolve) => {
      server.closeAllConnections();
      server.close(() => resolve());
    });
  return proxy;
}
