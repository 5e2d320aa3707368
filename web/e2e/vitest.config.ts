// End-to-end tests: one browser at a time against a real cluster, each file a behaviour area.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: { globalSetup: ['global_setup.ts'], root: new URL('.', import.meta.url).pathname, include: ['*.e2e.ts'], testTimeout: 120_000, hookTimeout: 60_000, fileParallelism: false },
});
