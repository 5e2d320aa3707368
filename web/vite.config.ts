// How the dashboard is built: one page, everything with a hashed name under assets/, nothing inline (the page runs under
// a Content-Security-Policy without 'unsafe-inline'), and heavy libraries in chunks of their own.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  build: {
    outDir: 'dist',
    target: 'es2022',
    // Inlined assets would be data: URLs, which the policy refuses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
  },
  test: { include: ['test/**/*.test.ts'], environment: 'node' },
});
