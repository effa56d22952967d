import { execFileSync } from 'node:child_process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { PrismaPg } from '@prisma/adapter-pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { schemaOf } from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { openTestTenancy } from '../support/tenants.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Beside the data folder, which is in no commit: the client is made here, by the same command as a user's. */
const CLIENT = `${ROOT}data/test-prisma/client.ts`;

interface Agent {
  id: string;
  name: string;
  tasks: { title: string }[];
}
/** What the test uses of the generated client. */
interface Client {
  agent: {
    create(query: { data: { name: string; agentType: string; tasks?: object } }): Promise<Agent>;
    findMany(query: { include?: { tasks: true }; where?: object }): Promise<Agent[]>;
    deleteMany(query: object): Promise<{ count: number }>;
  };
  $queryRawUnsafe(sql: string): Promise<unknown[]>;
  $transaction<T>(work: (client: Client) => Promise<T>): Promise<T>;
  $disconnect(): Promise<void>;
}

let database: TestDatabase;
let tenancy: Awaited<ReturnType<typeof openTestTenancy>>;
const clients: Client[] = [];

beforeAll(async () => {
  // Making the client downloads nothing when the schema engine is any executable: `generate` does not run it.
  execFileSync('npx', ['prisma', 'generate', '--schema', 'test/support/prisma/schema.prisma'], {
    cwd: ROOT,
    env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, CHECKPOINT_DISABLE: '1' },
    stdio: 'pipe',
  });
  database = await createTestDatabase();
  tenancy = await openTestTenancy(database);
});
afterAll(async () => {
  for (const client of clients) await client.$disconnect();
  await tenancy.stop();
  await database.drop();
});

/** As a user makes it from `tidemark tenants env`. */
async function prismaOf(tenantId: string): Promise<Client> {
  const generated = (await import(pathToFileURL(CLIENT).href)) as { PrismaClient: new (options: object) => Client };
  const adapter = new PrismaPg(
    { connectionString: await tenancy.urlOf(tenantId), max: 2 },
    { schema: schemaOf(tenantId) },
  );
  const client = new generated.PrismaClient({ adapter });
  clients.push(client);
  return client;
}

test('P7: Prisma Client as two tenants: each works with its own tables, neither sees the other', async () => {
  const [one, two] = [await tenancy.create('prisma-one'), await tenancy.create('prisma-two')];
  const [first, second] = [await prismaOf(one.id), await prismaOf(two.id)];
  await first.agent.create({
    data: { name: 'of one', agentType: 'x', tasks: { create: [{ title: 'a' }, { title: 'b' }] } },
  });
  await second.$transaction(async (client) => {
    await client.agent.create({ data: { name: 'of two', agentType: 'x' } });
  });
  const [mine] = await first.agent.findMany({ include: { tasks: true } });
  expect([mine?.name, mine?.tasks.map((task) => task.title).sort()]).toEqual(['of one', ['a', 'b']]);
  expect((await second.agent.findMany({})).map((agent) => agent.name)).toEqual(['of two']);
  // Not by a filter, not by name, not by SQL of its own.
  expect(await second.agent.findMany({ where: { id: mine?.id } })).toEqual([]);
  expect(await second.agent.deleteMany({ where: { name: 'of one' } })).toEqual({ count: 0 });
  await expect(second.$queryRawUnsafe(`SELECT * FROM "${schemaOf(one.id)}".agents`)).rejects.toThrow(
    /permission denied/,
  );
  await expect(second.$queryRawUnsafe('SELECT * FROM tidemark.tenants')).rejects.toThrow(/permission denied/);
  expect(await first.agent.findMany({})).toHaveLength(1);
});
