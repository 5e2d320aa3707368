// End-to-end tests: one browser at a time against a real cluster, each file a behaviour area.
import { defineConfig } from 'vitest/config';

// Against a dashboard that runs already there is no way to break its streams or to restart it.
const exclude = process.env['WINDLASS_DASHBOARD_LOGIN'] ? ['bad_days.e2e.ts'] : [];

export default defineConfig({
  test: { globalSetup: ['global_setup.ts'], exclude, root: new URL('.', import.meta.url).pathname, include: ['*.e2e.ts'], testTimeout: 120_000, hookTimeout: 60_000, fileParallelism: false },
});
