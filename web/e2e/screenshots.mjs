// Takes the pictures in docs/screenshots: the main pages in both themes, and some at 390 pixels, of a cluster that runs
// the examples. `npm run screenshots`; look at them afterwards.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const script = fileURLToPath(new URL('../dev/server.mjs', import.meta.url));
const folder = fileURLToPath(new URL('../docs/screenshots/', import.meta.url));
const server = spawn(process.execPath, [script, '--kubeconfig', process.env.WINDLASS_KUBECONFIG], { stdio: ['pipe', 'pipe', 'inherit'] });
const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
const url = (await lines.next()).value.replace('dashboard ', '');
let login = (await lines.next()).value.replace('login ', '');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });

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
    ['overview', '/'],
    ['workloads', '/workloads'],
    ['pods', '/list/core/pods?ns=*'],
    ['deployment', '/object/apps/deployments/default/hello'],
    ['pod', at],
    ['logs', '/object/apps/deployments/default/guestbook-backend/logs', async (shown) => { await shown.getByLabel('Timestamps').check(); await shown.locator('.log-line').first().waitFor(); }],
    ['use', `${at}/use`, async (shown) => shown.locator('.u-legend').first().waitFor()],
    ['yaml', '/object/apps/deployments/default/hello/yaml', async (shown) => shown.locator('.cm-line').first().waitFor()],
    ['rollback', '/object/apps/deployments/default/hello', press('rollback')],
    ['events', '/events?ns=*'],
    ['nodes', '/list/core/nodes'],
    ['access', '/access?view=who&ns=*'],
    ['map', '/map?ns=default'],
    ['create', '/create/app'],
    ['search', '/', async (shown) => { await shown.keyboard.press('/'); await shown.getByRole('combobox', { name: /Search/ }).fill('guestbook'); await shown.locator('#palette-hits li').nth(3).waitFor(); }],
  ];
}

async function shoot(name, options, only) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
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

await shoot('light', { viewport: { width: 1280, height: 800 }, colorScheme: 'light' });
await shoot('dark', { viewport: { width: 1280, height: 800 }, colorScheme: 'dark' });
await shoot('narrow', { viewport: { width: 390, height: 844 }, colorScheme: 'light' }, ['overview', 'pods', 'pod', 'logs', 'search']);
await browser.close();
server.kill();
