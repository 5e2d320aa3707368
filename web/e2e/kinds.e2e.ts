// Kinds that come while the dashboard is open, as custom resources do: made-up discovery and lists of a group that the
// server does not serve, and a watch that tells of a CustomResourceDefinition.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, openPage, startServer, type Server } from './browser';

const kind = (resource: string, name: string, scope = 'Namespaced') => ({ resource, singularResource: name.toLowerCase(), scope, verbs: ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete'], responseKind: { kind: name }, subresources: [{ subresource: 'status' }] });
const group = (name: string, version: string, resources: unknown[]) => ({ metadata: { name }, versions: [{ version, resources }] });
const DEFINITIONS = group('apiextensions.k8s.io', 'v1', [kind('customresourcedefinitions', 'CustomResourceDefinition', 'Cluster')]);
const WIDGETS = group('example.org', 'v1alpha1', [kind('widgets', 'Widget')]);
const WIDGET = { apiVersion: 'example.org/v1alpha1', kind: 'Widget', metadata: { name: 'first', namespace: 'default', uid: 'w1', resourceVersion: '5', creationTimestamp: '2026-01-01T00:00:00Z' }, spec: { colour: 'teal', parts: [{ size: 3 }] }, status: { conditions: [{ type: 'Ready', status: 'False', reason: 'Painting', message: 'the paint is wet', lastTransitionTime: '2026-01-01T00:00:00Z' }] } };
const LIST = { kind: 'WidgetList', apiVersion: 'example.org/v1alpha1', metadata: { resourceVersion: '5' }, items: [WIDGET] };
const TABLE = { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata: { resourceVersion: '5' }, columnDefinitions: [{ name: 'Name', type: 'string', priority: 0 }, { name: 'Colour', type: 'string', priority: 0 }], rows: [{ cells: ['first', 'teal'], object: WIDGET }] };

let server: Server;
let browser: Browser;
let page: Page;
let problems: string[];
let groups: unknown[] = [DEFINITIONS];
/** Tells of the definition over the watch that the page has of them. */
let define: (() => void) | undefined;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  ({ page, problems } = await openPage(browser, server));
  await page.route('**/kube/apis', async (route) => {
    const answer = await route.fetch();
    const body = await answer.json();
    const others = body.items.filter((item: { metadata: { name: string } }) => !['apiextensions.k8s.io', 'example.org'].includes(item.metadata.name));
    await route.fulfill({ response: answer, json: { ...body, items: [...others, ...groups] } });
  });
  await page.route('**/customresourcedefinitions?*', (route) => route.fulfill({ json: { kind: 'CustomResourceDefinitionList', metadata: { resourceVersion: '1' }, items: [] } }));
  await page.route('**/kube/apis/example.org/**', (route) => route.fulfill({ json: route.request().headers()['accept']?.includes('as=Table') ? TABLE : LIST }));
  await page.routeWebSocket(/\/stream$/, (socket) => {
    const real = socket.connectToServer();
    socket.onMessage((text) => {
      const { op, id, path } = JSON.parse(String(text)) as { op: string; id: number; path?: string };
      if (op === 'start' && path?.includes('customresourcedefinitions')) define = () => socket.send(JSON.stringify({ id, event: { type: 'ADDED', object: { metadata: { name: 'widgets.example.org', resourceVersion: '2' } } } }));
      else if (!path?.includes('example.org')) real.send(text);
    });
  });
  await page.goto(`${server.url}/kinds`);
  await page.getByRole('link', { name: 'CustomResourceDefinition', exact: true }).waitFor();
});
afterAll(async () => {
  await browser.close();
  await server.stop();
});

describe('a kind that is defined while the page is open', () => {
  it('appears among all kinds without a reload', async () => {
    expect(await page.getByRole('link', { name: 'Widget', exact: true }).count()).toBe(0);
    await expect.poll(() => define).toBeDefined();
    groups = [DEFINITIONS, WIDGETS];
    define!();
    await page.getByLabel('Filter kinds').fill('widget');
    await page.getByRole('link', { name: 'Widget', exact: true }).click();
  });

  it('has a list with the columns that the server prints', async () => {
    await page.getByRole('heading', { name: 'Widget', exact: true }).waitFor();
    await page.getByRole('button', { name: 'Colour' }).waitFor();
    await page.getByRole('row', { name: /first.*teal/ }).waitFor();
    await page.getByRole('link', { name: 'first', exact: true }).click();
  });

  it('has a page with conditions and YAML, and is found by search', async () => {
    await page.getByRole('heading', { name: 'first', exact: true }).waitFor();
    await page.getByText('the paint is wet').first().waitFor();
    await page.getByRole('link', { name: 'YAML', exact: true }).click();
    await page.locator('.cm-line').filter({ hasText: 'colour: teal' }).waitFor();
    await page.locator('.search-open').click();
    await page.getByRole('combobox', { name: /Search/ }).fill('widget');
    await page.locator('#palette-hits li').filter({ hasText: 'Widget' }).first().waitFor();
    await page.keyboard.press('Escape');
    expect(problems).toEqual([]);
  });

  it('and is gone when its definition is', async () => {
    groups = [DEFINITIONS];
    define!();
    await page.goto(`${server.url}/kinds`);
    await page.getByRole('link', { name: 'CustomResourceDefinition', exact: true }).waitFor();
    expect(await page.getByRole('link', { name: 'Widget', exact: true }).count()).toBe(0);
    await page.goto(`${server.url}/list/example.org/widgets`);
    await page.getByText('The API server does not serve widgets of example.org.').waitFor();
  });
});
