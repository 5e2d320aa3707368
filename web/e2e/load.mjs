// Load test: 10,000 pods (or --pods N) of which many change each second, in a list that is sorted and scrolled.
// Reports frame times and memory as Chromium measures them. It uses the development server's synthetic pods.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const { values: flags } = parseArgs({ options: { kubeconfig: { type: 'string', default: process.env.WINDLASS_KUBECONFIG }, pods: { type: 'string', default: '10000' }, rate: { type: 'string', default: '500' }, seconds: { type: 'string', default: '10' } } });
const script = fileURLToPath(new URL('../dev/server.mjs', import.meta.url));
const server = spawn(process.execPath, [script, '--kubeconfig', flags.kubeconfig, '--synthetic-pods', flags.pods, '--synthetic-rate', flags.rate], { stdio: ['pipe', 'pipe', 'inherit'] });
const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
const url = (await lines.next()).value.replace('dashboard ', '');
const login = (await lines.next()).value.replace('login ', '');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--enable-precise-memory-info', '--js-flags=--expose-gc'] });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });

/** Frame times while something is done to the page: the time from one animation frame to the next. */
async function frames(seconds, scroll) {
  return page.evaluate(async ([duration, scrolls]) => {
    const grid = document.querySelector('.table');
    const times = [];
    const end = performance.now() + duration * 1000;
    let last = performance.now();
    let direction = 1;
    while (performance.now() < end) {
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      times.push(now - last);
      last = now;
      if (!scrolls) continue;
      grid.scrollTop += 400 * direction;
      if (grid.scrollTop + grid.clientHeight >= grid.scrollHeight - 1 || grid.scrollTop === 0) direction = -direction;
    }
    times.sort((left, right) => left - right);
    const at = (share) => Number(times[Math.min(times.length - 1, Math.floor(times.length * share))].toFixed(1));
    return { frames: times.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), worst: at(1), over50ms: times.filter((time) => time > 50).length };
  }, [seconds, scroll]);
}

const memory = () => page.evaluate(() => { globalThis.gc?.(); return Math.round(performance.memory.usedJSHeapSize / 2 ** 20); });
const say = (what, value) => console.log(`${what.padEnd(46)} ${typeof value === 'string' ? value : JSON.stringify(value)}`);

await page.goto(login);
await page.getByText('Needs attention').waitFor();
const started = Date.now();
await page.goto(`${url}/list/core/pods?ns=*`);
await page.locator('.row a').first().waitFor();
const first = Date.now() - started;
await page.waitForFunction((wanted) => document.querySelector('[data-testid=count]')?.textContent === wanted, flags.pods);
say(`${flags.pods} pods, ${flags.rate} changes/s: first rows`, `${first} ms`);
say('all listed after', `${Date.now() - started} ms`);
say('elements in the page', String(await page.evaluate(() => document.querySelectorAll('*').length)));
say('heap after listing', `${await memory()} MiB`);
say('frame times at rest (ms)', await frames(Number(flags.seconds), false));
say('frame times while scrolling (ms)', await frames(Number(flags.seconds), true));
await page.goto(`${url}/list/core/pods?ns=*&sort=-restarts`);
await page.waitForFunction((wanted) => document.querySelector('[data-testid=count]')?.textContent === wanted, flags.pods);
say('frame times sorted by what changes (ms)', await frames(Number(flags.seconds), false));
await page.getByLabel('Filter rows').fill('app');
say('frame times while filtering (ms)', await frames(3, false));
say('heap at the end', `${await memory()} MiB`);
await browser.close();
server.kill();
