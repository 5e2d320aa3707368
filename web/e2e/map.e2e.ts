// The map over a real node: who may reach whom by policy, what was connected and what was refused, and how many now.
//
// WINDLASS_E2E_PROGRAM is the reference of the image of `tests/guests/probe`, as in pod_tools.e2e.ts.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Opened, type Server } from './browser';
import { makeNamespace, removeNamespace, until } from './cluster';

const image = process.env['WINDLASS_E2E_PROGRAM'];

describe.skipIf(!image)('the map', () => {
  let server: Server;
  let browser: Browser;
  let opened: Opened;
  let namespace: string;
  let address: string;

  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  const read = async (path: string): Promise<any> => (await api(opened.page, 'GET', path)).body;
  const pods = () => `/api/v1/namespaces/${namespace}/pods`;
  const run = async (name: string, ...args: string[]) => {
    const made = await api(opened.page, 'POST', pods(), { metadata: { name, labels: { app: name } }, spec: { restartPolicy: 'Never', containers: [{ name: 'app', image, args }] } });
    expect(made.code, JSON.stringify(made.body)).toBe(201);
  };
  const phase = async (name: string) => (await read(`${pods()}/${name}`)).status.phase;
  const edge = (title: string | RegExp) => opened.page.locator('svg g').filter({ has: opened.page.locator(`> title`, { hasText: title }) });

  beforeAll(async () => {
    server = await startServer();
    browser = await launch();
    opened = await openPage(browser, server);
    namespace = await makeNamespace(opened.page, 'map');
    const spec = { podSelector: { matchLabels: { app: 'echo' } }, ingress: [{ from: [{ podSelector: { matchLabels: { app: 'friend' } } }, { ipBlock: { cidr: '192.0.2.0/24' } }], ports: [{ port: 7000 }] }] };
    await api(opened.page, 'POST', `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`, { metadata: { name: 'only-friends' }, spec });
    await run('echo', 'tcp-echo', '0.0.0.0:7000', '100');
    address = await until('the address of the echo', async () => { const pod = await read(`${pods()}/echo`); return pod.status.phase === 'Running' && `${pod.status.podIP}:7000`; });
    await run('friend', 'tcp-ask', address, 'hello');
    await run('stranger', 'tcp-ask', address, 'hello');
    await until('both to be done', async () => (await phase('friend')) === 'Succeeded' && (await phase('stranger')) === 'Failed');
  });
  afterAll(async () => {
    await removeNamespace(opened.page, namespace);
    await browser.close();
    await server.stop();
  });

  it('draws what a policy allows, with its ports, and what it denies', async () => {
    await opened.page.goto(`${server.url}/map?ns=${namespace}`);
    await edge('friend may reach echo, ports 7000, by only-friends').waitFor({ state: 'attached' });
    await edge('stranger may not reach echo, by only-friends').waitFor({ state: 'attached' });
    await edge('192.0.2.0/24 may reach echo, ports 7000, by only-friends').waitFor({ state: 'attached' });
    expect(await edge(/echo may (not )?reach/).count()).toBe(0);
    expect(opened.problems).toEqual([]);
  });

  it('counts what was connected and what was refused', async () => {
    await edge('friend connections to echo').getByText('1', { exact: true }).waitFor();
    await edge('stranger connections refused to echo').getByText(/^\d+ denied/).waitFor();
  });

  it('follows the traffic as it goes', async () => {
    await api(opened.page, 'DELETE', `${pods()}/friend`);
    await until('friend to be gone', async () => (await api(opened.page, 'GET', `${pods()}/friend`)).code === 404);
    await run('friend', 'tcp-ask', address, 'again');
    await edge('friend connections to echo').getByText(/^2, 0\.\d\/s$/).waitFor();
  });

  it('leaves out what is not wanted, and keeps that in its address', async () => {
    await opened.page.getByLabel('Denied by policy').uncheck();
    await edge('stranger may not reach echo').waitFor({ state: 'detached' });
    await opened.page.reload();
    await edge('friend may reach echo').waitFor({ state: 'attached' });
    expect(await edge('stranger may not reach echo').count()).toBe(0);
    expect(opened.page.url()).toContain('hide=forbidden');
  });
});
