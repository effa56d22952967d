/** A schema registry that speaks the part of Confluent's protocol that we use (its REST API reference, v1). */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

export interface TestRegistry {
  url: string;
  /** requests as they came, `METHOD /path` */
  seen: string[];
  /** Puts a schema in, as another program would. @returns its id */
  put(schema: string): number;
  close(): Promise<void>;
}

export async function startRegistry(): Promise<TestRegistry> {
  const schemas: string[] = [];
  const subjects = new Map<string, number[]>();
  const configs = new Map<string, string>();
  const seen: string[] = [];
  const put = (schema: string) => {
    const known = schemas.indexOf(schema);
    return known >= 0 ? known + 1 : schemas.push(schema);
  };
  const answer = (response: ServerResponse, status: number, body: unknown) =>
    response.writeHead(status, { 'content-type': 'application/vnd.schemaregistry.v1+json' }).end(JSON.stringify(body));

  const server = createServer(async (request, response) => {
    const url = request.url ?? '';
    seen.push(`${request.method} ${url}`);
    const [, first = '', second = '', third = ''] = url.split('/').map(decodeURIComponent);
    const body = await bodyOf(request);
    if (first === 'schemas' && second === 'ids') {
      const schema = schemas[Number(third) - 1];
      if (schema === undefined) answer(response, 404, { error_code: 40403, message: 'Schema not found' });
      else answer(response, 200, { schema });
      return;
    }
    if (first === 'config') {
      if (request.method === 'PUT') configs.set(second, String(body.compatibility));
      const level = configs.get(second);
      if (level === undefined) answer(response, 404, { error_code: 40408, message: 'Subject config not found' });
      else answer(response, 200, { compatibilityLevel: level });
      return;
    }
    const ids = subjects.get(second) ?? [];
    if (third === 'versions') {
      const id = put(String(body.schema));
      subjects.set(second, [...ids, id]);
      answer(response, 200, { id });
      return;
    }
    const id = schemas.indexOf(String(body.schema)) + 1;
    if (ids.includes(id))
      answer(response, 200, { subject: second, id, version: ids.indexOf(id) + 1, schema: body.schema });
    else answer(response, 404, { error_code: 40401, message: 'Subject not found' });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    seen,
    put,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  return text === '' ? {} : JSON.parse(text);
}
