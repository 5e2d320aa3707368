// Takes the pictures in docs/screenshots: the main pages in both themes, and some at 390 pixels, of a cluster that runs
// the examples; it visits the guestbook, gives its backend a policy, changes
// hello and adds an app that can't start, so that there is something to see. `npm run screenshots`; look at them
// afterwards.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { readKubeconfig } from '../dev/kubeconfig.mjs';
import { ask } from '../dev/proxy.mjs';

const script = fileURLToPath(new URL('../dev/server.mjs', import.meta.url));
const folder = fileURLToPath(new URL('../docs/screenshots/', import.meta.url));
const server = spawn(process.execPath, [script, '--kubeconfig', process.env.WINDLASS_KUBECONFIG], { stdio: ['pipe', 'pipe', 'inherit'] });
const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
const url = (await lines.next()).value.replace('dashboard ', '');
let login = (await lines.next()).value.replace('login ', '');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });

const upstream = readKubeconfig(process.env.WINDLASS_KUBECONFIG);
const api = async (method, path, body) => (await ask(upstream, upstream.admin, method, path, body)).body;
const POLICIES = '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies';
const part = (component) => ({ matchLabels: { 'app.kubernetes.io/name': 'guestbook', 'app.kubernetes.io/component': component } });

const DEPLOYMENTS = '/apis/apps/v1/namespaces/default/deployments';

/** Something to see: an app that is wrong, a second revision, a policy, and traffic that is going on. */
async function liven() {
  const labels = { app: 'checkout' };
  const containers = [{ name: 'app', image: 'registry.windlass.local/default/checkout:v3' }];
  await api('POST', DEPLOYMENTS, { metadata: { name: 'checkout' }, spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers } } } });
  const hello = await api('GET', `${DEPLOYMENTS}/hello`);
  hello.spec.template.spec.containers[0].env.push({ name: 'GREETING', value: `Hello at ${Date.now()}` });
  await api('PUT', `${DEPLOYMENTS}/hello`, hello);
  const spec = { podSelector: part('backend'), ingress: [{ from: [{ podSelector: part('frontend') }] }] };
  await api('POST', POLICIES, { metadata: { name: 'guestbook-backend' }, spec });
  const { spec: service } = await api('GET', '/api/v1/namespaces/default/services/guestbook-frontend');
  const visit = () => fetch(`http://127.0.0.1:${service.ports[0].nodePort}/`).then((answer) => answer.text());
  for (let count = 0; count < 20; count += 1) await visit();
  const visits = setInterval(() => void visit(), 250);
  return () => clearInterval(visits);
}

const settled = (page) => page.waitForFunction(() => document.querySelector('#page h1') && !document.querySelector('.loading'));
const press = (name) => async (page) => {
  await page.locator(`[data-action=${name}]:not([aria-disabled])`).click();
  await page.getByRole('dialog').waitFor();
};

async function pages(page) {
  const pods = await (await page.request.get(`${url}/kube/api/v1/namespaces/default/pods`)).json();
  const pod = pods.items.find((item) => item.metadata.name.startsWith('guestbook-backend')) ?? pods.items[0];
  const at = `/object/core/pods/default/${pod.metadata.name}`;
  return [
    ['overview', '/', async (shown) => shown.getByText('CPU used').first().waitFor()],
    ['workloads', '/workloads'],
    ['pods', '/list/core/pods?ns=*'],
    ['deployment', '/object/apps/deployments/default/hello'],
    ['pod', at],
    ['logs', '/object/apps/deployments/default/guestbook-backend/logs', async (shown) => { await shown.getByLabel('Timestamps').check(); await shown.locator('.log-line').first().waitFor(); }],
    ['component', `${at}/wasm`, async (shown) => shown.getByText('wasi:', { exact: false }).first().waitFor()],
    ['use', `${at}/use`, async (shown) => shown.locator('.u-legend').first().waitFor()],
    ['yaml', '/object/apps/deployments/default/hello/yaml', async (shown) => shown.locator('.cm-line').first().waitFor()],
    ['rollback', '/object/apps/deployments/default/hello', press('rollback')],
    ['events', '/events?ns=*'],
    ['nodes', '/list/core/nodes'],
    ['access', '/access?view=who&ns=*'],
    // Twice looked at, for what flows each second.
    ['map', '/map?ns=default', async (shown) => shown.locator('.label-flow').filter({ hasText: '/s' }).first().waitFor()],
    ['create', '/create/app'],
    ['search', '/', async (shown) => { await shown.keyboard.press('/'); await shown.getByRole('combobox', { name: /Search/ }).fill('guestbook'); await shown.locator('#palette-hits li').nth(3).waitFor(); }],
  ];
}

async function shoot(name, options, only) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(login);
  await page.getByText('Needs attention').waitFor();
  for (const [title, path, more] of await pages(page)) {
    if (only && !only.includes(title)) continue;
    await page.goto(url + path);
    await settled(page);
    await more?.(page);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await page.screenshot({ path: `${folder}${title}-${name}.png` });
  }
  await context.close();
  server.stdin.write('link\n');
  login = (await lines.next()).value.replace('login ', '');
}

const quiet = await liven();
try {
  const wide = { width: 1280, height: 800 };
  await shoot('light', { viewport: wide, colorScheme: 'light' });
  await shoot('dark', { viewport: wide, colorScheme: 'dark' });
  await shoot('narrow', { viewport: { width: 390, height: 844 }, colorScheme: 'light' }, ['overview', 'pods', 'pod', 'logs', 'map', 'search']);
} finally {
  quiet();
  await api('DELETE', `${POLICIES}/guestbook-backend`);
  await api('DELETE', `${DEPLOYMENTS}/checkout`);
  await browser.close();
  server.kill();
}
