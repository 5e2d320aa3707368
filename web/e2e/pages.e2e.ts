// Every page opens, shows what the cluster has, and stays live; keys and search lead where they say.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Opened, type Server } from './browser';
import { configMap, deployment, helloImage, makeNamespace, removeNamespace, until } from './cluster';

let server: Server;
let browser: Browser;
let opened: Opened;
let namespace: string;
let pod: string;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  opened = await openPage(browser, server);
  const { page } = opened;
  namespace = await makeNamespace(page, 'pages');
  await api(page, 'POST', `/apis/apps/v1/namespaces/${namespace}/deployments`, deployment('web', await helloImage(page)));
  await api(page, 'POST', `/api/v1/namespaces/${namespace}/services`, { metadata: { name: 'web' }, spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 'http' }] } });
  pod = await until('a running pod', async () => {
    const { body } = await api(page, 'GET', `/api/v1/namespaces/${namespace}/pods`);
    return (body as unknown as { items: { metadata: { name: string }; status: { phase: string } }[] }).items.find((item) => item.status.phase === 'Running')?.metadata.name;
  });
});
afterAll(async () => {
  await removeNamespace(opened.page, namespace);
  await browser.close();
  await server.stop();
});

const go = (path: string) => opened.page.goto(`${server.url}${path}`);

describe('pages', () => {
  const pages: [path: string, text: string | RegExp][] = [
    ['/', 'Needs attention'],
    ['/workloads', 'web'],
    ['/list/core/pods?ns=*', /^web-/],
    ['/list/core/nodes', 'Ready'],
    ['/list/core/namespaces', 'kube-system'],
    ['/list/core/services?ns=*', 'ClusterIP'],
    ['/list/coordination.k8s.io/leases?ns=*', 'Holder'],
    ['/list/rbac.authorization.k8s.io/clusterroles', 'cluster-admin'],
    ['/events', 'Last seen'],
    ['/kinds', 'ConfigMap'],
    ['/access', /kubernetes-admin|dashboard-e2e/],
    ['/access?view=who', 'Group system:masters'],
    ['/access?view=subject&subject=Group%20system:masters', 'ClusterRole cluster-admin'],
    ['/map?ns=*', 'Services'],
    ['/create', 'YAML'],
    ['/create/app', 'App from an image'],
    ['/create/expose', 'Deployment'],
    ['/create/config', 'Entries'],
    ['/create/wasm', 'Choose a file'],
    ['/nowhere', 'There is no such page.'],
    ['/list/core/unicorns', 'The API server does not serve unicorns of core.'],
    ['/object/core/pods/default/nobody', 'There is no Pod nobody in namespace default.'],
  ];
  it.each(pages)('%s', async (path, text) => {
    await go(path);
    await opened.page.locator('#page').getByText(text).filter({ visible: true }).first().waitFor();
    expect(opened.problems).toEqual([]);
  });

  const tabs: [tab: string, text: string | RegExp][] = [
    ['', 'Containers'], ['logs', 'Follow'], ['terminal', 'Open'], ['wasm', /node\.windlass\.dev|Instances now/], ['use', /By container|There are no metrics/], ['connect', /kubectl port-forward --namespace/], ['volumes', /volumes/i], ['events', 'Scheduled'], ['yaml', 'apiVersion'],
  ];
  it.each(tabs)('a pod’s tab “%s”', async (tab, text) => {
    await go(`/object/core/pods/${namespace}/${pod}/${tab}`);
    await opened.page.locator('#page').getByText(text).filter({ visible: true }).first().waitFor();
    expect(opened.problems).toEqual([]);
  });

  it('a pod’s owners are a tree that leads to them', async () => {
    await go(`/object/core/pods/${namespace}/${pod}`);
    await opened.page.locator('.tree').getByRole('link', { name: 'web', exact: true }).click();
    await opened.page.getByRole('heading', { name: 'web', exact: true }).waitFor();
    await opened.page.locator('.tree').getByRole('link', { name: pod }).waitFor();
  });

  it('each kind that can be listed has a list', async () => {
    await go('/kinds');
    await opened.page.locator('.row a').first().waitFor();
    const links = await opened.page.locator('.row a').evaluateAll((anchors) => anchors.map((anchor) => anchor.getAttribute('href')!));
    expect(links.length).toBeGreaterThan(15);
    for (const link of links) {
      await go(link);
      await opened.page.locator('#page').locator('[role=grid], .note-bad').first().waitFor();
    }
    expect(opened.problems).toEqual([]);
  });
});

describe('lists', () => {
  it('follow the cluster without a reload, filter, and sort', async () => {
    const { page } = opened;
    await go(`/list/core/configmaps?ns=${namespace}`);
    await page.getByRole('link', { name: 'kube-root-ca.crt' }).waitFor();
    await api(page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('live-10', {}, { labels: { colour: 'red' } }));
    await api(page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('live-2'));
    await page.getByRole('link', { name: 'live-2' }).waitFor();
    await page.getByLabel('Filter rows').fill('live');
    await page.getByTestId('count').getByText('2 of 3').waitFor();
    expect(await page.locator('.row:not(.row-head) a').allTextContents()).toEqual(['live-2', 'live-10']);
    await page.getByRole('button', { name: 'Name' }).click();
    await until('the other order', async () => (await page.locator('.row:not(.row-head) a').allTextContents()).join() === 'live-10,live-2');
    await page.getByLabel('Label selector').fill('colour=red');
    await page.getByTestId('count').getByText('1 of 3').waitFor();
    await page.getByLabel('Label selector').fill('-bad=');
    await page.getByRole('alert').getByText('is not a requirement').waitFor();
    await api(page, 'DELETE', `/api/v1/namespaces/${namespace}/configmaps/live-2`);
    await page.getByRole('link', { name: 'live-2' }).waitFor({ state: 'detached' });
  });
});

describe('keys and search', () => {
  it('g and a letter go to a page, arrows and Enter open a row, ? shows the keys', async () => {
    const { page } = opened;
    await go('/');
    await page.getByText('Needs attention').waitFor();
    await page.keyboard.press('g');
    await page.keyboard.press('d');
    await page.getByRole('heading', { name: 'Deployment' }).waitFor();
    await page.getByRole('link', { name: 'web', exact: true }).waitFor();
    await page.getByRole('grid').focus();
    await page.keyboard.press('ArrowDown');
    await page.locator('[aria-selected=true]').waitFor();
    await page.keyboard.press('Enter');
    await page.getByRole('group', { name: 'Actions' }).waitFor();
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
  });

  it('search finds objects by name and by label, and offers actions', async () => {
    const { page } = opened;
    await page.keyboard.press('/');
    await page.getByRole('combobox', { name: /Search/ }).fill('deploy web');
    await page.getByRole('option').filter({ hasText: 'Deployment' }).filter({ hasText: namespace }).waitFor();
    await page.getByRole('combobox', { name: /Search/ }).fill('colour=red');
    await page.getByRole('option', { name: /live-10/ }).waitFor();
    await page.getByRole('combobox', { name: /Search/ }).fill('scale web');
    await page.getByRole('option', { name: /Scale web/ }).first().waitFor();
    await page.keyboard.press('Enter');
    await page.getByRole('dialog', { name: /Scale/ }).waitFor();
    await page.keyboard.press('Escape');
  });
});
