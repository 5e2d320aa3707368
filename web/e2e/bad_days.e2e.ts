// Bad days: used links, wrong tokens, ended sessions, lost connections, restarted servers, users with few rights.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Opened, type Server } from './browser';
import { configMap, makeNamespace, removeNamespace, startCluster, tokenFor, until } from './cluster';

let server: Server;
let browser: Browser;
let admin: Opened;
let namespace: string;
let viewer: string;
let confined: string;
const contexts: Opened[] = [];

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  admin = await openPage(browser, server);
  namespace = await makeNamespace(admin.page, 'bad');
  await api(admin.page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('settings', { a: 'b' }));
  viewer = await tokenFor(admin.page, namespace, 'viewer', 'view');
  confined = await tokenFor(admin.page, namespace, 'confined', 'view', false);
});
afterEach(async () => {
  for (const { context } of contexts.splice(0)) await context.close();
});
afterAll(async () => {
  await removeNamespace(admin.page, namespace);
  await api(admin.page, 'DELETE', `/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/${namespace}-viewer`);
  await browser.close();
  await server.stop();
});

const open = async (options: Parameters<typeof openPage>[2] = {}, at = server) => {
  const opened = await openPage(browser, at, options);
  contexts.push(opened);
  return opened.page;
};
const anonymous = async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  contexts.push({ context, page, problems: [] });
  return page;
};

describe('signing in', () => {
  it('a login link works once', async () => {
    const link = await server.link();
    const page = await anonymous();
    await page.goto(link);
    await page.getByText('Needs attention').waitFor();
    expect(page.url()).toBe(`${server.url}/`);
    const other = await anonymous();
    await other.goto(link);
    await other.getByText('This login link was used before', { exact: false }).waitFor();
  });

  it('a wrong token is refused with the reason, and is not in the address', async () => {
    const page = await anonymous();
    await page.goto(server.url);
    await page.getByLabel('Bearer token').fill('not-a-token');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('Not signed in.').waitFor();
    expect(page.url()).not.toContain('token');
  });

  it('a deep link is kept through signing in', async () => {
    const page = await anonymous();
    await page.goto(`${server.url}/object/core/configmaps/${namespace}/settings`);
    await page.getByLabel('Bearer token').fill(viewer);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { name: 'settings' }).waitFor();
  });

  it('signing out ends the session', async () => {
    const page = await open();
    await page.getByRole('button', { name: 'Sign out' }).filter({ visible: true }).click();
    await page.getByRole('heading', { name: 'Sign in to Windlass' }).waitFor();
    await page.goto(server.url);
    await page.getByRole('heading', { name: 'Sign in to Windlass' }).waitFor();
  });
});

describe('a user who may only read', () => {
  it('sees objects; actions are disabled with the reason', async () => {
    const page = await open({ token: viewer });
    await page.goto(`${server.url}/object/core/configmaps/${namespace}/settings`);
    const button = page.locator('[data-action=delete][aria-disabled]');
    await button.waitFor();
    await page.waitForFunction(() => document.querySelector('[data-action=delete]')?.getAttribute('title')?.includes('You may not delete configmaps'));
    await button.click({ force: true });
    expect(await page.getByRole('dialog').count()).toBe(0);
    await page.goto(`${server.url}/object/core/configmaps/${namespace}/settings/yaml`);
    await page.waitForFunction(() => [...document.querySelectorAll('button')].some((entry) => entry.textContent === 'Edit' && entry.title.includes('You may not update configmaps')));
  });

  it('is told what may not be listed, in the navigation and on the page', async () => {
    const page = await open({ token: viewer });
    await page.locator('.nav-off', { hasText: 'Secrets' }).waitFor();
    await page.goto(`${server.url}/list/core/secrets?ns=${namespace}`);
    await page.getByRole('alert').getByText('You may not list this.').waitFor();
  });

  it('of one namespace works there', async () => {
    const page = await open({ token: confined });
    await page.goto(`${server.url}/list/core/configmaps?ns=${namespace}`);
    await page.getByRole('link', { name: 'settings' }).waitFor();
    await page.getByLabel(/^Namespace/).waitFor();
    await page.goto(`${server.url}/list/core/configmaps?ns=*`);
    await page.getByRole('alert').getByText('You may not list this.').waitFor();
  });
});

describe.skipIf(!process.env['WINDLASS_BIN'])('an API server that is killed and started again', () => {
  it('is waited for; the list is true again without a reload', async () => {
    const data = fs.mkdtempSync(path.join(os.tmpdir(), 'windlass-e2e-'));
    const own = await startCluster(data);
    const front = await startServer([], own.kubeconfig);
    const page = await open({}, front);
    await page.goto(`${front.url}/list/core/configmaps?ns=default`);
    await page.getByRole('link', { name: 'kube-root-ca.crt' }).waitFor();
    await api(page, 'POST', '/api/v1/namespaces/default/configmaps', configMap('before'));
    await page.getByRole('link', { name: 'before' }).waitFor();
    await own.kill();
    await page.getByText('not live', { exact: false }).first().waitFor();
    await page.getByRole('link', { name: 'before' }).waitFor();
    const again = await startCluster(data, own.port);
    await until('the API again', async () => (await api(page, 'POST', '/api/v1/namespaces/default/configmaps', configMap('after'))).code === 201);
    await page.getByRole('link', { name: 'after' }).waitFor();
    await page.getByText('not live', { exact: false }).waitFor({ state: 'detached' });
    await front.stop();
    await again.kill();
    fs.rmSync(data, { recursive: true, force: true });
  });
});

describe('a lost connection', () => {
  it('is said, and what happened meanwhile is there after it', async () => {
    const page = await open();
    await page.goto(`${server.url}/list/core/configmaps?ns=${namespace}`);
    await page.getByRole('link', { name: 'settings' }).waitFor();
    server.drop(3000);
    await page.getByText('Reconnecting.', { exact: false }).waitFor();
    await api(page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('while-away'));
    await api(page, 'DELETE', `/api/v1/namespaces/${namespace}/configmaps/settings`);
    await page.getByRole('link', { name: 'while-away' }).waitFor();
    await page.getByRole('link', { name: 'settings' }).waitFor({ state: 'detached' });
    await page.getByText('Reconnecting.', { exact: false }).waitFor({ state: 'detached' });
    await api(page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('settings', { a: 'b' }));
    await page.getByRole('link', { name: 'settings' }).waitFor();
  });

  it('of a restarted server asks to sign in again, and goes on at the same page', async () => {
    const first = await startServer();
    const port = new URL(first.url).port;
    const page = await open({ token: viewer }, first);
    await page.goto(`${first.url}/list/core/configmaps?ns=${namespace}`);
    await page.getByRole('link', { name: 'settings' }).waitFor();
    await first.stop();
    await page.getByText('Reconnecting.', { exact: false }).waitFor();
    await page.getByRole('link', { name: 'settings' }).waitFor();
    const second = await startServer(['--listen', `127.0.0.1:${port}`]);
    await page.getByText('Your session ended.', { exact: false }).waitFor();
    await page.getByLabel('Bearer token').fill(viewer);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('link', { name: 'settings' }).waitFor();
    expect(page.url()).toContain('/list/core/configmaps');
    await second.stop();
  });

  it('a session that expires leads to signing in', async () => {
    const short = await startServer(['--session-seconds', '6']);
    const page = await open({ token: viewer }, short);
    await page.getByText('Your session ended.', { exact: false }).waitFor();
    await short.stop();
  });

  it('a server that is not there yet is waited for', async () => {
    const page = await open();
    await page.route('**/session', (route) => route.abort());
    await page.reload();
    await page.getByText('does not answer. Trying again.', { exact: false }).waitFor();
    await page.unroute('**/session');
    await page.getByText('Needs attention').waitFor();
  });
});
