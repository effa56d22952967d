import { createServer } from 'node:http';

export interface Received {
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

/** A real HTTP server that keeps what it is sent, and answers what it is told to (204 by default). */
export async function startReceiver(): Promise<{
  url: string;
  received: Received[];
  answers: number[];
  stop(): Promise<void>;
}> {
  const received: Received[] = [];
  const answers: number[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', () => {
      received.push({ headers: request.headers, body });
      response.writeHead(answers.shift() ?? 204).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}/hook`,
    received,
    answers,
    stop: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
