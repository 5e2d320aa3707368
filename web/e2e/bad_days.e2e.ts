// Bad days: wrong tokens, sessions that were ended, lost connections, users with few rights. What needs a server that is
// killed or configured otherwise is in real_server.e2e.ts.
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Opened, type Server } from './browser';
import { configMap, makeNamespace, removeNamespace, tokenFor } from './cluster';
import { layLine } from './line';

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

describe('a lost connection', () => {
  it('is said, and what happened meanwhile is there after it', async () => {
    const line = await layLine(server);
    const page = await open({ token: viewer }, line.server);
    await page.goto(`${line.server.url}/list/core/configmaps?ns=${namespace}`);
    await page.getByRole('link', { name: 'settings' }).waitFor();
    line.cut();
    await page.getByText('Reconnecting.', { exact: false }).waitFor();
    await api(admin.page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('while-away'));
    await api(admin.page, 'DELETE', `/api/v1/namespaces/${namespace}/configmaps/settings`);
    line.mend();
    await page.getByRole('link', { name: 'while-away' }).waitFor();
    await page.getByRole('link', { name: 'settings' }).waitFor({ state: 'detached' });
    await page.getByText('Reconnecting.', { exact: false }).waitFor({ state: 'detached' });
    await api(admin.page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('settings', { a: 'b' }));
    await page.getByRole('link', { name: 'settings' }).waitFor();
    await line.stop();
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
