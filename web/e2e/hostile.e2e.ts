// Data that means harm or is only odd: nothing of a cluster is ever HTML, whatever its length, and whatever characters a
// name may have, its page opens and what is done there is done to it.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Server } from './browser';
import { configMap, makeNamespace, removeNamespace, until } from './cluster';

let server: Server;
let browser: Browser;
let page: Page;
let problems: string[];
let namespace: string;

const SCRIPT = '<img src=x onerror="document.title=1"><script>document.title="hacked"</script>';
const LINES = Array.from({ length: 1000 }, (_, index) => `line ${index} ${SCRIPT}`).join('\n');

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  ({ page, problems } = await openPage(browser, server));
  namespace = await makeNamespace(page, 'hostile');
});
afterAll(async () => {
  await removeNamespace(page, namespace);
  await browser.close();
  await server.stop();
});

const go = (path: string) => page.goto(`${server.url}${path}`);
const create = async (path: string, body: unknown) => {
  const made = await api(page, 'POST', path, body);
  expect(made.code, JSON.stringify(made.body)).toBe(201);
};
/** Nothing of what is shown became an element, and the page works on. */
const isHarmless = async () => {
  expect(await page.locator('#page img, #page script, [role=dialog] img, [role=dialog] script').count()).toBe(0);
  expect(await page.title()).toBe('Windlass');
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
  expect(problems).toEqual([]);
};

describe('labels, annotations and data', () => {
  it('stay text wherever they are shown', async () => {
    const annotations = { note: SCRIPT, link: 'javascript:alert(1)', good: 'https://example.org/a', 'example.org/A.b_c-D': '\u202egnp.exe' };
    const labels = { 'example.org/A.b_c-D': 'X.y_z-9', empty: '' };
    await create(`/api/v1/namespaces/${namespace}/configmaps`, configMap('hostile', { 'a.b_c-D': SCRIPT }, { labels, annotations }));
    await go(`/object/core/configmaps/${namespace}/hostile`);
    await page.getByText('4 annotations').click();
    await page.getByText('<img src=x', { exact: false }).first().waitFor();
    expect(await page.locator('a[href^="javascript"]').count()).toBe(0);
    expect(await page.locator('a[href="https://example.org/a"]').getAttribute('rel')).toContain('noopener');
    await isHarmless();
    await page.getByRole('link', { name: 'example.org/A.b_c-D=X.y_z-9' }).click();
    await page.getByRole('link', { name: 'hostile', exact: true }).waitFor();
    await go(`/object/core/configmaps/${namespace}/hostile/yaml`);
    await page.locator('.cm-line').filter({ hasText: '<img src=x' }).first().waitFor();
    await isHarmless();
  });
});

describe('messages of a thousand lines', () => {
  const status = { phase: 'Pending', message: LINES, conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: LINES }], containerStatuses: [{ name: 'c', image: 'x', imageID: '', ready: false, restartCount: 0, state: { waiting: { reason: 'ImagePullBackOff', message: LINES } } }] };

  beforeAll(async () => {
    await create(`/api/v1/namespaces/${namespace}/pods`, { metadata: { name: 'wordy' }, spec: { nodeSelector: { nobody: 'has' }, containers: [{ name: 'c', image: 'x' }] } });
    // The scheduler has its say first.
    await until('a verdict of the scheduler', async () => ((await api(page, 'GET', `/api/v1/namespaces/${namespace}/pods/wordy`)).body as unknown as { status: { conditions?: unknown[] } }).status.conditions?.length);
    const told = await api(page, 'PATCH', `/api/v1/namespaces/${namespace}/pods/wordy/status`, { status }, 'application/strategic-merge-patch+json');
    expect(told.code, JSON.stringify(told.body)).toBe(200);
    await create(`/api/v1/namespaces/${namespace}/events`, { metadata: { name: 'wordy.1' }, involvedObject: { kind: 'Pod', apiVersion: 'v1', namespace, name: 'wordy' }, type: 'Warning', reason: 'Failed', message: LINES, firstTimestamp: new Date().toISOString(), lastTimestamp: new Date().toISOString(), count: 1 });
  });

  it.each([['the pod’s page', '', 'line 0 <img'], ['its events', '/events', 'line 0 <img'], ['its YAML', '/yaml', 'apiVersion']])('stay in their place on %s', async (_what, tab, text) => {
    await go(`/object/core/pods/${namespace}/wordy${tab}`);
    await page.locator('#page').getByText(text, { exact: false }).first().waitFor();
    await isHarmless();
    // What follows it is still reached.
    await page.getByRole('link', { name: 'Events' }).last().waitFor();
  });

  it('and on the pages that list what is wrong', async () => {
    for (const path of ['/', `/events?ns=${namespace}`, `/list/core/pods?ns=${namespace}`]) {
      await go(path);
      await page.locator('#page').getByRole('link', { name: /wordy/ }).filter({ visible: true }).first().waitFor();
      await isHarmless();
    }
  });
});

describe('names', () => {
  const ROLES = '/apis/rbac.authorization.k8s.io/v1/clusterroles';
  const ODD = `e2e:Ä <b>"'&?#+;=@,~!*()[]{}|\\^$\` ..`;

  it('of every character that a role may have lead to its page, and to no other object', async () => {
    const name = `${ODD}${namespace}`;
    await create(ROLES, { metadata: { name }, rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] });
    await go('/list/rbac.authorization.k8s.io/clusterroles');
    await page.getByLabel('Filter rows').fill(namespace);
    await page.getByRole('link', { name, exact: true }).click();
    await page.getByRole('heading', { name, exact: true, level: 1 }).waitFor();
    await page.getByRole('link', { name: 'YAML' }).click();
    await page.locator('.cm-line').filter({ hasText: namespace }).first().waitFor();
    await page.reload();
    await page.getByRole('heading', { name, exact: true, level: 1 }).waitFor();
    await isHarmless();
    await page.locator('[data-action=delete]:not([aria-disabled])').click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete ClusterRole' }).click();
    await page.getByText('was deleted on the server', { exact: false }).waitFor();
    expect((await api(page, 'GET', `${ROLES}/${encodeURIComponent(name)}`)).code).toBe(404);
  });

  it.each([['a.b-c.0'], ['0'], [`${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(131)}`]])('of a ConfigMap: %s', async (name) => {
    await create(`/api/v1/namespaces/${namespace}/configmaps`, configMap(name, { a: 'b' }));
    await go(`/list/core/configmaps?ns=${namespace}`);
    await page.getByRole('link', { name, exact: true }).click();
    await page.getByRole('heading', { name, exact: true, level: 1 }).waitFor();
    await isHarmless();
  });
});
