import { createStorage } from '../support/storage.ts';
import { describeStorageEngine } from './storage-engine.ts';

describeStorageEngine('native partitions', () => createStorage('native'), false);
