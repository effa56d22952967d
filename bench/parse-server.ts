/** The ingest yardstick: the same HTTP server, with a handler that only parses JSON. Prints its address. */
import Fastify from 'fastify';

const app = Fastify({ bodyLimit: 50_000_000 });
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
app.post('/api/v1/logs', async (request, reply) => {
  JSON.parse(String(request.body));
  return reply.code(204).send();
});
process.stdout.write(`listens on ${await app.listen({ port: 0, host: '127.0.0.1' })}\n`);
process.on('SIGTERM', () => process.exit(0));
