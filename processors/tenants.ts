import type { TenantDirectory } from '../schemas/index.ts';
import { Interner } from './interner.ts';
import type { KnownTenant } from './rollups/rollups.ts';

/** The tenants that a partition's owner has met, by small index. They are few and their UUIDs never change. */
export class Tenants {
  readonly #names = new Interner();
  readonly #known: (KnownTenant | undefined)[] = [];
  readonly #unresolved = new Set<number>();
  readonly #directory: TenantDirectory;
  readonly #create: boolean;

  constructor(directory: TenantDirectory, unknownTenants: 'create' | 'reject') {
    this.#directory = directory;
    this.#create = unknownTenants === 'create';
  }

  /** The index of the customer_id in bytes [start, end). */
  indexOf(bytes: Uint8Array, start: number, end: number): number {
    const index = this.#names.idOf(bytes, start, end);
    if (this.#known[index] === undefined) this.#unresolved.add(index);
    return index;
  }

  /** Resolves every name met since the last call; creates unknown ones where that is the setting. */
  async resolve(): Promise<void> {
    if (this.#unresolved.size === 0) return;
    const indexes = [...this.#unresolved];
    const names = indexes.map((index) => this.#names.text(index));
    const found = this.#create ? await this.#directory.discover(names) : await this.#directory.findAll(names);
    for (const [i, index] of indexes.entries()) {
      const tenant = found.get(names[i] ?? '');
      if (tenant !== undefined) this.#known[index] = { index, id: Buffer.from(tenant.id.replaceAll('-', ''), 'hex') };
    }
    this.#unresolved.clear();
  }

  /** undefined: there is no such tenant. */
  get(index: number): KnownTenant | undefined {
    return this.#known[index];
  }

  name(index: number): string {
    return this.#names.text(index);
  }
}
