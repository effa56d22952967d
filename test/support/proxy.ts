/** A TCP proxy that can be made a bad network. */
import { connect, createServer, type Server, type Socket } from 'node:net';

/** what happens to bytes: they pass, pass late, or vanish without a word; `cut` refuses and resets instead */
export type Weather = 'fine' | 'slow' | 'silent' | 'cut';

const SLOW_MS = 150;

interface Pair {
  near: Socket;
  far: Socket;
  /** went silent: the peer knows nothing of it any more, and nothing brings it back */
  isSilent: boolean;
}

export class TcpProxy {
  readonly address: string;
  readonly #server: Server;
  readonly #target: () => { host: string; port: number };
  readonly #pairs = new Set<Pair>();
  #weather: Weather = 'fine';

  private constructor(server: Server, port: number, target: () => { host: string; port: number }) {
    this.#server = server;
    this.#target = target;
    this.address = `127.0.0.1:${port}`;
    server.on('connection', (socket) => this.#accept(socket));
  }

  /** @param target asked at each connection, so that it may be known later */
  static start(target: () => { host: string; port: number }): Promise<TcpProxy> {
    return new Promise((resolve, reject) => {
      const server = createServer();
      server.once('error', reject);
      server.listen(0, '127.0.0.1', () => {
        const address = server.address();
        resolve(new TcpProxy(server, typeof address === 'object' && address !== null ? address.port : 0, target));
      });
    });
  }

  /** Changes the weather for the connections that there are and those to come. */
  set(weather: Weather): void {
    this.#weather = weather;
    if (weather === 'silent') for (const pair of this.#pairs) pair.isSilent = true;
    if (weather === 'cut') this.#reset();
  }

  async close(): Promise<void> {
    this.#reset();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #reset(): void {
    for (const { near, far } of this.#pairs) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
    this.#pairs.clear();
  }

  #accept(near: Socket): void {
    if (this.#weather === 'cut') {
      near.resetAndDestroy();
      return;
    }
    const far = connect(this.#target());
    const pair: Pair = { near, far, isSilent: this.#weather === 'silent' };
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on('data', (chunk: Buffer) => this.#carry(pair, chunk, to));
      from.on('error', end);
      from.on('close', end);
    }
  }

  #carry(pair: Pair, chunk: Buffer, to: Socket): void {
    if (pair.isSilent) return;
    if (this.#weather === 'slow') setTimeout(() => to.destroyed || to.write(chunk), SLOW_MS);
    else to.write(chunk);
  }
}
