// The component panel, the map's traffic and log floods, against answers of the contract made by the test: they hold
// whether the cluster under test serves node.windlass.dev or not.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, openPage, startServer, type Server } from './browser';

let server: Server;
let browser: Browser;
let page: Page;
let problems: string[];
let pods: { metadata: { name: string } }[];

const GROUP = { metadata: { name: 'node.windlass.dev' }, versions: [{ version: 'v1', resources: [{ resource: 'podcomponents', scope: 'Namespaced', verbs: ['get'], responseKind: { kind: 'PodComponents' } }, { resource: 'podflows', scope: 'Namespaced', verbs: ['get', 'list'], responseKind: { kind: 'PodFlows' } }] }] };
const COMPONENT = {
  name: 'hello', image: 'i', digest: 'sha256:aa', world: 'wasi:http/proxy',
  imports: [{ interface: 'wasi:filesystem/types@0.2.6', granted: true, by: 'volume data at /data' }, { interface: 'wasi:sockets/tcp@0.2.6', granted: false }],
  exports: ['wasi:http/incoming-handler@0.2.6'], limits: { memoryBytes: 33554432, cpuMillis: 100, requestsPerInstance: 1, egress: 'cluster' }, instances: { current: 3, started: 1024 }, compileMilliseconds: 41, startMicroseconds: 37,
  lastTrap: { time: '2026-01-01T00:00:00Z', message: 'wasm trap: <b>unreachable</b>', backtrace: '0: app!main\n1: app!start' },
};

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  ({ page, problems } = await openPage(browser, server));
  pods = (await (await page.request.get(`${server.url}/kube/api/v1/namespaces/default/pods?labelSelector=app.kubernetes.io/name=hello`)).json()).items;
  await page.route('**/kube/apis', async (route) => {
    const answer = await route.fetch();
    const body = await answer.json();
    body.items = [...body.items.filter((item: typeof GROUP) => item.metadata.name !== 'node.windlass.dev'), GROUP];
    await route.fulfill({ response: answer, json: body });
  });
  await page.route('**/podcomponents/**', (route) => route.fulfill({ json: { kind: 'PodComponents', metadata: {}, timestamp: new Date().toISOString(), containers: [COMPONENT] } }));
  const flows = [{ direction: 'Egress', peer: { kind: 'Pod', namespace: 'default', name: pods[1]!.metadata.name }, protocol: 'TCP', port: 80, connections: 17, denied: 2, bytesSent: 1, bytesReceived: 1 }];
  await page.route('**/podflows', (route) => route.fulfill({ json: { kind: 'PodFlowsList', metadata: {}, items: [{ metadata: { namespace: 'default', name: pods[0]!.metadata.name }, flows }] } }));
});
afterAll(async () => {
  await browser.close();
  await server.stop();
});

describe('the component panel', () => {
  it('shows imports, who granted them, exports, counts and the trap as text', async () => {
    await page.goto(`${server.url}/object/core/pods/default/${pods[0]!.metadata.name}/wasm`);
    await page.getByRole('row', { name: /wasi:filesystem\/types@0\.2\.6 yes volume data at \/data/ }).waitFor();
    await page.getByRole('row', { name: /wasi:sockets\/tcp@0\.2\.6 no nothing in the pod grants it/ }).waitFor();
    for (const text of ['wasi:http/incoming-handler@0.2.6', '1024', '41 ms', '37 µs', '32 MiB', 'wasm trap: <b>unreachable</b>', '1: app!start']) await page.getByText(text, { exact: false }).first().waitFor();
    expect(problems).toEqual([]);
  });

  it('shows what the node itself says', async () => {
    const real = await openPage(browser, server);
    const path = `/kube/apis/node.windlass.dev/v1/namespaces/default/podcomponents/${pods[0]!.metadata.name}`;
    const answer = await (await real.page.request.get(`${server.url}${path}`)).json();
    const [component] = answer.containers;
    expect(component.imports.length).toBeGreaterThan(0);
    await real.page.goto(`${server.url}/object/core/pods/default/${pods[0]!.metadata.name}/wasm`);
    for (const { interface: name, by } of component.imports) await real.page.getByRole('row', { name: `${name} yes ${by}` }).waitFor();
    for (const text of [component.digest, component.exports[0]]) await real.page.getByText(text).first().waitFor();
    expect(real.problems).toEqual([]);
    await real.context.close();
  });
});

describe('the map', () => {
  it('writes counts on its lines and dashes what was denied', async () => {
    await page.goto(`${server.url}/map?ns=default`);
    await page.locator('svg').getByText('17', { exact: true }).waitFor();
    await page.locator('svg').getByText('2 denied').waitFor();
    expect(await page.locator('path.edge-denied').count()).toBe(1);
  });
});

describe('logs', () => {
  it('a flood with long lines stays light, is searched, and is downloaded whole', async () => {
    const lines = Array.from({ length: 60_000 }, (_, index) => `2026-01-01T00:00:00.${String(index).padStart(9, '0')}Z line ${index}${index % 5000 === 0 ? ` needle ${'x'.repeat(20_000)}` : ''}`);
    await page.route('**/log?*', (route) => route.fulfill({ contentType: 'text/plain', body: `${lines.join('\n')}\n` }));
    await page.goto(`${server.url}/object/core/pods/default/${pods[0]!.metadata.name}/logs`);
    await page.getByText('line 59999', { exact: true }).waitFor();
    await page.getByText('older lines were dropped', { exact: false }).waitFor();
    expect(await page.locator('.log-line').count()).toBeLessThan(200);
    await page.getByLabel('Search the log').fill('needle');
    await page.getByText(/^\d+ lines$/).first().waitFor();
    await page.getByLabel('Only these').check();
    await page.locator('.log-hit').first().waitFor();
    await page.getByLabel('Timestamps').check();
    await page.getByText('2026-01-01 00:00:00.', { exact: false }).first().waitFor();
    const waiting = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download' }).click();
    expect((await waiting).suggestedFilename()).toMatch(/\.log$/);
    await page.unroute('**/log?*');
    expect(problems).toEqual([]);
  });

  it('follow what arrives', async () => {
    await page.goto(`${server.url}/object/core/pods/default/${pods[0]!.metadata.name}/logs`);
    await page.getByRole('log').waitFor();
  });
});
