// Load test: 10,000 pods (or --pods N) of a real server, of which many change each second, in a list that is sorted and
// scrolled. Reports frame times and memory as Chromium measures them.
//
//   WINDLASS_KUBECONFIG (or --kubeconfig)  a cluster that may be changed; the pods are of a scheduler that is not there,
//                                          in namespaces load-0 … load-19, which are removed at the end
//   WINDLASS_DASHBOARD_LOGIN               a login link of its dashboard; else dist/ is served by the development server
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { readKubeconfig } from '../dev/kubeconfig.mjs';
import { ask } from '../dev/proxy.mjs';

const { values: flags } = parseArgs({ options: { kubeconfig: { type: 'string', default: process.env.WINDLASS_KUBECONFIG }, pods: { type: 'string', default: '10000' }, rate: { type: 'string', default: '500' }, seconds: { type: 'string', default: '10' } } });
const COUNT = Number(flags.pods);
const NAMESPACES = Array.from({ length: 20 }, (_, index) => `load-${index}`);
const WRITERS = 16;
const upstream = readKubeconfig(flags.kubeconfig);

async function api(method, path, body) {
  const answer = await ask(upstream, upstream.admin, method, path, body);
  if (answer.code >= 300 && answer.code !== 409) throw new Error(`${method} ${path}: ${answer.code} ${JSON.stringify(answer.body).slice(0, 200)}`);
  return answer.body;
}

/** Runs a job for each number below `count`, so many at a time. */
async function each(count, job) {
  let next = 0;
  const worker = async () => {
    while (next < count) await job(next++);
  };
  await Promise.all(Array.from({ length: WRITERS }, worker));
}

const nameOf = (index) => `load-${String(index).padStart(5, '0')}`;
const namespaceOf = (index) => NAMESPACES[index % NAMESPACES.length];
const podOf = (index) => ({ metadata: { name: nameOf(index), labels: { app: `app-${index % 50}`, tier: index % 2 ? 'web' : 'worker' } }, spec: { schedulerName: 'nobody', containers: [{ name: 'app', image: 'registry.windlass.local/load/app:v1', resources: { requests: { cpu: '10m', memory: '16Mi' } } }] } });

/** What nodes write of pods: that their container started once more, and whether it is ready. */
const statusOf = (index, restarts) => ({ apiVersion: 'v1', kind: 'Pod', metadata: { name: nameOf(index), namespace: namespaceOf(index) }, status: { phase: 'Running', qosClass: 'Burstable', podIP: '10.0.0.1', startTime: new Date().toISOString(), conditions: [{ type: 'Ready', status: restarts % 7 ? 'True' : 'False', lastTransitionTime: new Date().toISOString() }], containerStatuses: [{ name: 'app', image: 'app', imageID: '', ready: restarts % 7 !== 0, restartCount: restarts, state: { running: { startedAt: new Date().toISOString() } } }] } });

/** Changes random pods at a rate, until it is stopped; the result tells how many it were. */
function change(rate) {
  let [changed, running] = [0, true];
  const started = Date.now();
  const worker = async () => {
    while (running) {
      const ahead = changed / rate - (Date.now() - started) / 1000;
      if (ahead > 0) await new Promise((resolve) => setTimeout(resolve, ahead * 1000));
      changed += 1;
      const index = Math.floor(Math.random() * COUNT);
      await api('PUT', `/api/v1/namespaces/${namespaceOf(index)}/pods/${nameOf(index)}/status`, statusOf(index, changed));
    }
  };
  const ended = Promise.all(Array.from({ length: WRITERS }, worker));
  return async () => {
    running = false;
    await ended;
    return Math.round(changed / ((Date.now() - started) / 1000));
  };
}

function startServer() {
  const script = fileURLToPath(new URL('../dev/server.mjs', import.meta.url));
  const child = spawn(process.execPath, [script, '--kubeconfig', flags.kubeconfig], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { lines, stop: () => child.kill() };
}

/** Frame times while something is done to the page: the time from one animation frame to the next. */
async function frames(page, seconds, scroll) {
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

const say = (what, value) => console.log(`${what.padEnd(46)} ${typeof value === 'string' ? value : JSON.stringify(value)}`);

const made = Date.now();
for (const name of NAMESPACES) await api('POST', '/api/v1/namespaces', { metadata: { name } });
await each(COUNT, (index) => api('POST', `/api/v1/namespaces/${namespaceOf(index)}/pods`, podOf(index)));
say(`${COUNT} pods made`, `${((Date.now() - made) / 1000).toFixed(1)} s`);

const given = process.env.WINDLASS_DASHBOARD_LOGIN;
const server = given ? undefined : startServer();
if (server) await server.lines.next();
const login = given ?? (await server.lines.next()).value.replace('login ', '');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--enable-precise-memory-info', '--js-flags=--expose-gc'] });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
const memory = () => page.evaluate(() => { globalThis.gc?.(); return `${Math.round(performance.memory.usedJSHeapSize / 2 ** 20)} MiB`; });
/** Opens the list of all pods, and waits for its first rows. */
const list = async (query) => {
  await page.goto(new URL(`/list/core/pods?ns=*${query}`, login).href);
  await page.locator('.row a').first().waitFor();
};
const whole = () => page.waitForFunction((wanted) => Number(document.querySelector('[data-testid=count]')?.textContent) >= wanted, COUNT, { timeout: 120_000 });

await page.goto(login);
await page.getByText('Needs attention').waitFor();
const stopChanging = change(Number(flags.rate));
const started = Date.now();
await list('');
say('first rows', `${Date.now() - started} ms`);
await whole();
say('all listed after', `${Date.now() - started} ms`);
say('elements in the page', String(await page.evaluate(() => document.querySelectorAll('*').length)));
say('heap after listing', await memory());
say('frame times at rest (ms)', await frames(page, Number(flags.seconds), false));
say('frame times while scrolling (ms)', await frames(page, Number(flags.seconds), true));
await list('&sort=-restarts');
await whole();
say('frame times sorted by what changes (ms)', await frames(page, Number(flags.seconds), false));
await page.getByLabel('Filter rows').fill('load-1');
say('frame times while filtering (ms)', await frames(page, 3, false));
say('heap at the end', await memory());
say('changes per second', String(await stopChanging()));
await browser.close();
server?.stop();
for (const name of NAMESPACES) await api('DELETE', `/api/v1/namespaces/${name}`);
process.exit(0);
