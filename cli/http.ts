import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import Fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  LogController,
} from 'fastify';
import { type ErrorCode, type KeyStore, type Problem, TidemarkError, toProblem } from '../schemas/index.ts';
import { isTransient, ObjectStoreUnavailable } from '../sinks/index.ts';
import type { Audit } from './audit.ts';

/** Fastify's own errors in terms of the catalogue. */
const BY_STATUS: Record<number, ErrorCode> = {
  400: 'invalid_body',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'body_too_large',
  415: 'unsupported_media_type',
  431: 'invalid_parameter',
};

/** The HTTP application without its routes: request ids, errors as problem+json, keys, documentation. */
export async function createHttp(deps: {
  keys: KeyStore;
  logger: FastifyBaseLogger;
  isStopping(): boolean;
  audit?: Audit;
}): Promise<FastifyInstance> {
  const app: FastifyInstance = Fastify({
    loggerInstance: deps.logger,
    genReqId: (request) => {
      const given = request.headers['x-request-id'];
      return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID();
    },
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'request_id' }),
    routerOptions: { maxParamLength: 512, ignoreTrailingSlash: true },
    forceCloseConnections: 'idle',
    keepAliveTimeout: 30_000,
    // A request that trickles in holds its socket no longer than this; answers may take their time.
    requestTimeout: 120_000,
    clientErrorHandler: refuse,
    onProtoPoisoning: 'remove',
    ajv: { customOptions: { coerceTypes: 'array', removeAdditional: false, allErrors: false } },
    frameworkErrors: (error, request, reply: FastifyReply) => {
      // The URL itself can't be read.
      void send(reply, toProblem(new TidemarkError('invalid_parameter', error.message), request.id));
    },
  });

  // Clients that always say application/json also do so where a body may be left out.
  const parse = app.getDefaultJsonParser('remove', 'remove');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else parse(request, String(body), done);
  });
  app.setErrorHandler((error: FastifyError | Error, request, reply) => {
    const known = describe(error, request.id);
    if (known.status >= 500) request.log.error({ err: error, code: known.code, url: request.url }, error.message);
    if (error instanceof TidemarkError) reply.headers(error.headers);
    return send(reply, known);
  });
  app.setNotFoundHandler((request) => {
    throw new TidemarkError('not_found', `there is no ${request.method} ${request.url.split('?', 1)[0]}`);
  });
  app.addHook('onRequest', async (request, reply) => {
    // PostgreSQL has no NUL in a text: nothing can match it.
    if (/%00/.test(request.url)) throw new TidemarkError('invalid_parameter', 'NUL is in no name and no text');
    if (deps.isStopping()) {
      reply.header('connection', 'close');
      throw new TidemarkError('shutting_down', 'the server is stopping', { headers: { 'retry-after': '1' } });
    }
  });
  app.addHook('onSend', async (request, reply) => {
    reply.header('x-request-id', request.id);
  });

  app.decorateRequest('authorize', async function (scope) {
    const [scheme, bearer] = (this.headers.authorization ?? '').split(' ', 2);
    const challenge = { headers: { 'www-authenticate': 'Bearer' } };
    if (scheme?.toLowerCase() !== 'bearer' || !bearer)
      throw new TidemarkError('unauthorized', 'no bearer key', challenge);
    const principal = await deps.keys.authenticate(bearer);
    if (principal === undefined) throw new TidemarkError('unauthorized', 'the key is unknown or revoked', challenge);
    if (!principal.scopes.has(scope)) throw new TidemarkError('forbidden', `the key lacks the scope ${scope}`);
    await deps.audit?.(this, principal, scope);
    return principal;
  });

  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Tidemark',
        version: '1',
        description: 'Metering and analytics: events in, exact totals and percentiles out.',
      },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
      security: [{ key: [] }],
    },
  });
  await app.register(swaggerUi, { routePrefix: '/docs' });
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
  return app;
}

/** Status and words for what is no HTTP request, by Node's code. */
const UNREADABLE: Record<string, [number, string]> = {
  HPE_HEADER_OVERFLOW: [431, 'the header is larger than 16 KB'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'the request did not arrive in time'],
};

/** What never becomes a request gets its problem too, and loses its connection. */
function refuse(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code !== 'ECONNRESET' && socket.writable) {
    const [status, detail] = UNREADABLE[error.code ?? ''] ?? [400, 'this is no HTTP request'];
    const code = status === 431 ? 'invalid_parameter' : 'invalid_body';
    const body = JSON.stringify({ ...toProblem(new TidemarkError(code, detail), randomUUID()), status });
    socket.write(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/problem+json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    );
  }
  socket.destroySoon();
}

/** Exactly this content type: a charset parameter is none of problem+json's. */
function send(reply: FastifyReply, problem: Problem): FastifyReply {
  return reply
    .code(problem.status)
    .header('content-type', 'application/problem+json')
    .header('x-request-id', problem.request_id)
    .send(Buffer.from(JSON.stringify(problem)));
}

/** Any error as a problem of the catalogue; its own text only where it is ours to show. */
function describe(error: FastifyError | Error, requestId: string) {
  if (error instanceof TidemarkError) return toProblem(error, requestId);
  if ('validation' in error && Array.isArray(error.validation)) {
    const inBody = 'validationContext' in error && error.validationContext === 'body';
    return toProblem(new TidemarkError(inBody ? 'invalid_body' : 'invalid_parameter', error.message), requestId);
  }
  if (isTransient(error))
    return toProblem(new TidemarkError('database_unavailable', 'the database can not be reached now'), requestId);
  if (error instanceof ObjectStoreUnavailable)
    return toProblem(new TidemarkError('archive_unavailable', 'the object store can not be reached now'), requestId);
  const status = 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500;
  const code = BY_STATUS[status] ?? (status < 500 ? 'invalid_body' : undefined);
  if (code !== undefined) return toProblem(new TidemarkError(code, error.message), requestId);
  return toProblem(new TidemarkError('internal', 'something went wrong on our side'), requestId);
}
