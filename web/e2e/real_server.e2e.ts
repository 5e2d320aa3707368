// The dashboard of `windlass server` itself, over TLS, as processes of this test's own: signing in by token and by client
// certificate, users with few rights, a restart under an open page, sessions that expire or are revoked; and the link of
// `windlass up`. WINDLASS_BIN names the program.
import fs from 'node:fs';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { launch, WAIT, watchProblems } from './browser';
import { asAdmin, createUser, newDirectory, PROGRAM, startCluster, startControlPlane, tokenOf } from './control_plane';

const MAPS = '/api/v1/namespaces/default/configmaps';

describe.skipIf(!PROGRAM)('windlass server', () => {
  let browser: Browser;
  let data: string;
  let plane: Awaited<ReturnType<typeof startControlPlane>>;
  let admin: string;
  let viewer: string;
  const contexts: BrowserContext[] = [];

  beforeAll(async () => {
    browser = await launch();
    data = newDirectory();
    plane = await startControlPlane(data);
    admin = await tokenOf(plane.kubeconfig, 'e2e-admin', 'cluster-admin');
    viewer = await tokenOf(plane.kubeconfig, 'e2e-viewer', 'view');
    await asAdmin(plane.kubeconfig, 'POST', MAPS, { metadata: { name: 'settings' }, data: { a: 'b' } });
  });
  afterEach(async () => {
    for (const context of contexts.splice(0)) await context.close();
  });
  afterAll(async () => {
    await browser.close();
    await plane.kill();
    fs.rmSync(data, { recursive: true, force: true });
  });

  const newPage = async (options: Parameters<Browser['newContext']>[0] = {}): Promise<Page> => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
    contexts.push(context);
    const page = await context.newPage();
    page.setDefaultTimeout(WAIT);
    return page;
  };
  const enter = async (page: Page, token: string) => {
    await page.getByLabel('Bearer token').fill(token);
    await page.getByRole('button', { name: 'Sign in' }).click();
  };
  const signIn = async (token: string, path = '/') => {
    const page = await newPage();
    await page.goto(`${plane.url}${path}`);
    await enter(page, token);
    return page;
  };
  const link = (page: Page, name: string) => page.getByRole('link', { name, exact: true });
  /** The same server again: same data, same addresses. */
  const startAgain = async (options: string[] = []) => {
    await plane.kill();
    plane = await startControlPlane(data, options, plane.listen);
  };

  it('takes a token, which no script, no address and no log has afterwards', async () => {
    const addresses: string[] = [];
    const page = await newPage();
    const problems = watchProblems(page);
    page.on('request', (request) => addresses.push(request.url()));
    await page.goto(`${plane.url}/list/core/configmaps?ns=default`);
    await enter(page, admin);
    await link(page, 'settings').waitFor();
    const [cookie] = await page.context().cookies();
    expect(cookie).toMatchObject({ httpOnly: true, secure: true, sameSite: 'Strict' });
    const kept = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }, location.href]));
    for (const text of [kept, addresses.join('\n'), plane.output()]) {
      expect(text).not.toContain(admin);
      expect(text).not.toContain(cookie!.value);
    }
    expect(problems).toEqual([]);
  });

  it('lets a user who may only read do no more', async () => {
    const page = await signIn(viewer, '/object/core/configmaps/default/settings');
    await page.waitForFunction(() => document.querySelector('[data-action=delete]')?.getAttribute('title')?.includes('You may not delete configmaps'));
    await page.locator('.nav-off', { hasText: 'Secrets' }).waitFor();
    await page.goto(`${plane.url}/object/core/configmaps/default/settings/yaml`);
    await page.locator('button[aria-disabled]', { hasText: 'Edit' }).waitFor();
    await page.goto(`${plane.url}/list/core/secrets?ns=default`);
    await page.getByRole('alert').getByText('You may not list this.').waitFor();
    // What a page could send all the same, the server refuses.
    const refused = await page.request.delete(`${plane.url}/kube${MAPS}/settings`, { headers: { 'X-Windlass-Request': '1' } });
    expect(refused.status()).toBe(403);
  });

  it('knows who shows a client certificate, without signing in', async () => {
    await asAdmin(plane.kubeconfig, 'POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', { metadata: { name: 'e2e-team' }, roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'view' }, subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'team' }] });
    const page = await newPage({ clientCertificates: [{ origin: plane.url, ...createUser(plane.kubeconfig, 'ann', 'team') }] });
    await page.goto(`${plane.url}/list/core/configmaps?ns=default`);
    await link(page, 'settings').waitFor();
    await page.locator('.user-name', { hasText: 'ann' }).waitFor();
    expect(await page.locator('.user-name').getAttribute('title')).toBe('ann. Groups: team, system:authenticated. Known by client certificate.');
    await asAdmin(plane.kubeconfig, 'POST', MAPS, { metadata: { name: 'live' } });
    await link(page, 'live').waitFor();
    await page.goto(`${plane.url}/object/core/configmaps/default/settings`);
    await page.waitForFunction(() => document.querySelector('[data-action=delete]')?.getAttribute('title')?.includes('You may not delete configmaps'));
  });

  it('that is killed and started again is waited for; after signing in the open page is true again', async () => {
    const page = await signIn(admin, '/list/core/configmaps?ns=default');
    await link(page, 'settings').waitFor();
    await plane.kill();
    await page.getByText('Reconnecting.', { exact: false }).waitFor();
    await link(page, 'settings').waitFor();
    await startAgain();
    await asAdmin(plane.kubeconfig, 'POST', MAPS, { metadata: { name: 'while-away' } });
    await asAdmin(plane.kubeconfig, 'DELETE', `${MAPS}/settings`);
    await page.getByText('Your session ended.', { exact: false }).waitFor();
    expect(page.url()).toContain('/list/core/configmaps?ns=default');
    await enter(page, admin);
    await link(page, 'while-away').waitFor();
    expect(await link(page, 'settings').count()).toBe(0);
    await asAdmin(plane.kubeconfig, 'POST', MAPS, { metadata: { name: 'settings' } });
    await link(page, 'settings').waitFor();
  });

  it('somebody else who signs in on the page that another left sees nothing of it', async () => {
    const page = await signIn(admin, '/object/core/secrets/default/hidden');
    await asAdmin(plane.kubeconfig, 'POST', '/api/v1/namespaces/default/secrets', { metadata: { name: 'hidden' }, stringData: { word: 'swordfish' } });
    await page.getByRole('group', { name: 'Actions' }).waitFor();
    await startAgain();
    await page.getByText('Your session ended.', { exact: false }).waitFor();
    await enter(page, viewer);
    await page.getByRole('alert').getByText('hidden could not be read', { exact: false }).waitFor();
    expect(await page.getByRole('group', { name: 'Actions' }).count()).toBe(0);
  });

  it('a token that is revoked ends the session at the next request', async () => {
    const token = await tokenOf(plane.kubeconfig, 'e2e-gone', 'view');
    const page = await signIn(token, '/list/core/configmaps?ns=default');
    await link(page, 'settings').waitFor();
    await asAdmin(plane.kubeconfig, 'DELETE', '/api/v1/namespaces/default/serviceaccounts/e2e-gone');
    await page.getByRole('link', { name: 'Services' }).click();
    await page.getByText('Your session ended.', { exact: false }).waitFor();
  });

  it('a session that expires leads to signing in, also where nothing is asked for', async () => {
    await startAgain(['--dashboard-session', '5s']);
    const page = await signIn(admin, '/kinds');
    await page.getByRole('heading', { name: 'All kinds' }).waitFor();
    await page.getByText('Your session ended.', { exact: false }).waitFor();
    await enter(page, admin);
    await page.getByRole('heading', { name: 'All kinds' }).waitFor();
  });
});

describe.skipIf(!PROGRAM)('windlass up', () => {
  it('prints a link that opens a session, once', async () => {
    const browser = await launch();
    const data = newDirectory();
    const cluster = await startCluster(data);
    const page = await (await browser.newContext()).newPage();
    await page.goto(cluster.link);
    await page.getByText('Needs attention').waitFor();
    expect(page.url()).toBe(new URL('/', cluster.link).href);
    const other = await (await browser.newContext()).newPage();
    await other.goto(cluster.link);
    await other.getByText('This login link was used before', { exact: false }).waitFor();
    await browser.close();
    await cluster.kill();
    fs.rmSync(data, { recursive: true, force: true });
  });
});
