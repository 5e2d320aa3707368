// Every way to create: YAML pasted, opened and dropped, the forms, and a .wasm file pushed from the browser.
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Server } from './browser';
import { helloImage, makeNamespace, removeNamespace, until } from './cluster';

const WASM = process.env['WINDLASS_E2E_WASM'] ?? fileURLToPath(new URL('../../examples/hello/hello.wasm', import.meta.url));

let server: Server;
let browser: Browser;
let page: Page;
let problems: string[];
let namespace: string;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  ({ page, problems } = await openPage(browser, server));
  namespace = await makeNamespace(page, 'create');
});
afterAll(async () => {
  await removeNamespace(page, namespace);
  await browser.close();
  await server.stop();
});

// eslint-disable-next-line @typescript-eslint/no-explicit-any
const read = async (path: string): Promise<any> => (await api(page, 'GET', path)).body;
const core = (rest: string) => read(`/api/v1/namespaces/${namespace}/${rest}`);
const go = (form: string) => page.goto(`${server.url}/create/${form}?ns=${namespace}`);
const enabled = (name: string) => page.locator('button:not([aria-disabled])', { hasText: name });

const setEditor = async (text: string) => {
  await page.locator('.cm-content').click();
  await page.keyboard.press('Control+a');
  await page.keyboard.insertText(text);
};
/** From the text in the editor to objects in the cluster. */
const checkAndApply = async () => {
  await enabled('Check').click();
  await enabled('Apply').click();
  await page.getByRole('heading', { name: 'What was done' }).waitFor();
};
/** Drops files on an element, as a file manager does. */
const dropOn = async (selector: string, files: { name: string; type: string; bytes: number[] }[]) => {
  const data = await page.evaluateHandle((list) => {
    const transfer = new DataTransfer();
    for (const { name, type, bytes } of list) transfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
    return transfer;
  }, files);
  for (const type of ['dragenter', 'dragover', 'drop']) await page.dispatchEvent(selector, type, { dataTransfer: data });
};
const text = (name: string, content: string) => ({ name, type: 'application/yaml', bytes: [...Buffer.from(content)] });
const configMap = (name: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\ndata:\n  a: b\n`;

describe('YAML', () => {
  it('that is pasted is applied after a check, which shows what is wrong with it', async () => {
    await go('yaml');
    await setEditor(`${configMap('pasted')}---\napiVersion: v1\nkind: Nonsense\nmetadata:\n  name: x\n`);
    await enabled('Check').click();
    await page.getByText('The server has no kind Nonsense in v1.').waitFor();
    await page.getByText('would be created').waitFor();
    await setEditor(configMap('pasted'));
    await checkAndApply();
    await page.getByRole('link', { name: 'pasted' }).click();
    await page.getByRole('heading', { name: 'pasted' }).waitFor();
  });

  it('of several files that are dropped is applied together', async () => {
    await go('yaml');
    await page.locator('.cm-content').waitFor();
    await dropOn('.cm-content', [text('one.yaml', configMap('dropped-one')), text('two.yaml', configMap('dropped-two'))]);
    await page.getByRole('heading', { name: '2 objects' }).waitFor();
    await checkAndApply();
    for (const name of ['dropped-one', 'dropped-two']) expect((await core(`configmaps/${name}`)).data).toEqual({ a: 'b' });
    expect(problems).toEqual([]);
  });

  it('that is none is refused with its line, and nothing is sent', async () => {
    await go('yaml');
    await page.locator('.cm-content').waitFor();
    await dropOn('.cm-content', [text('bad.yaml', 'a: [\n'), text('binary.yaml', '\u0000\u0001')]);
    await page.getByRole('alert').getByText(/^Line \d+:/).waitFor();
    await page.locator('button[aria-disabled]', { hasText: 'Check' }).waitFor();
  });

  it('of files that are opened, with what the server refuses', async () => {
    await go('yaml');
    await page.getByLabel('Open YAML files').setInputFiles({ name: 'pod.yaml', mimeType: 'application/yaml', buffer: Buffer.from('apiVersion: v1\nkind: Pod\nmetadata:\n  name: empty\nspec:\n  containers: []\n') });
    await enabled('Check').click();
    await page.getByText(/spec\.containers: Required value/).waitFor();
    await page.locator('button[aria-disabled]', { hasText: 'Apply' }).waitFor();
  });
});

describe('forms', () => {
  it('App makes a Deployment and a Service that answer', async () => {
    await go('app');
    await page.getByLabel('Name', { exact: true }).fill('Bad Name');
    await page.getByRole('alert').getByText('A name has lower-case letters', { exact: false }).waitFor();
    await page.locator('button[aria-disabled]', { hasText: 'Review YAML' }).waitFor();
    await page.getByLabel('Name', { exact: true }).fill('shop');
    await page.getByRole('textbox', { name: 'Image' }).fill(await helloImage(page));
    await page.getByLabel('Replicas').fill('2');
    await page.getByLabel('Reachable').selectOption('NodePort');
    await page.getByLabel('Memory').fill('48Mi');
    await page.getByRole('button', { name: 'Add' }).click();
    await page.getByLabel('Environment variables: name 1').fill('GREETING');
    await page.getByLabel('Environment variables: value 1').fill('yes: "quoted"');
    await page.getByRole('button', { name: 'Review YAML' }).click();
    await checkAndApply();
    const found = await until('two replicas', async () => { const app = await read(`/apis/apps/v1/namespaces/${namespace}/deployments/shop`); return app.status?.readyReplicas === 2 && app; });
    const [container] = found.spec.template.spec.containers;
    expect(container.env).toEqual([{ name: 'GREETING', value: 'yes: "quoted"' }]);
    expect(container.resources).toEqual({ requests: { cpu: '10m', memory: '48Mi' }, limits: { memory: '48Mi' } });
    const { nodePort } = (await core('services/shop')).spec.ports[0];
    await until('an answer', async () => (await fetch(`http://127.0.0.1:${nodePort}/`)).ok);
  });

  it('Expose makes a Service for a Deployment that is there', async () => {
    await go('expose');
    await page.getByLabel('Deployment').selectOption('shop');
    await page.getByLabel('Name of the Service').fill('shop-inside');
    await page.getByLabel('Port of the Service').fill('8000');
    await page.getByRole('button', { name: 'Review YAML' }).click();
    await checkAndApply();
    const { spec } = await core('services/shop-inside');
    expect([spec.type, spec.ports[0].port, spec.ports[0].targetPort, spec.selector]).toEqual(['ClusterIP', 8000, 'http', { 'app.kubernetes.io/name': 'shop' }]);
    const slices = async () => (await read(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices?labelSelector=kubernetes.io/service-name=shop-inside`)).items;
    await until('its endpoints', async () => (await slices())[0]?.endpoints?.length === 2);
  });

  it.each([['ConfigMap', 'configmaps'], ['Secret', 'secrets']])('Configuration makes a %s', async (kind, resource) => {
    await go('config');
    await page.getByLabel('Kind').selectOption(kind);
    await page.getByLabel('Name', { exact: true }).fill('settings');
    await page.getByLabel('Entries: name 1').fill('app.properties');
    await page.getByLabel('Entries: value 1').fill('a=1\nb: <two>\n');
    await page.getByRole('button', { name: 'Add' }).click();
    await page.getByLabel('Entries: name 2').fill('empty');
    await page.getByRole('button', { name: 'Review YAML' }).click();
    await checkAndApply();
    const { data } = await core(`${resource}/settings`);
    const plain = (value: string) => (kind === 'Secret' ? Buffer.from(value ?? '', 'base64').toString() : value);
    expect(plain(data['app.properties'])).toBe('a=1\nb: <two>\n');
    expect(plain(data['empty'])).toBe('');
    expect(problems).toEqual([]);
  });
});

describe.skipIf(!fs.existsSync(WASM))('a .wasm file', () => {
  it('that is dropped is pushed to the registry, and runs', async () => {
    await go('wasm');
    await page.locator('.drop').waitFor();
    await dropOn('.drop', [{ name: 'Dropped_App.wasm', type: 'application/wasm', bytes: [...fs.readFileSync(WASM)] }]);
    await page.getByText('component', { exact: true }).waitFor();
    await enabled('Push and run').click();
    const image = page.getByRole('textbox', { name: 'Image' });
    await image.waitFor();
    expect(await image.inputValue()).toMatch(new RegExp(`^registry\\.windlass\\.local/${namespace}/dropped-app@sha256:`));
    await page.getByRole('button', { name: 'Review YAML' }).click();
    await checkAndApply();
    await until('the app from the pushed file', async () => (await read(`/apis/apps/v1/namespaces/${namespace}/deployments/dropped-app`)).status?.readyReplicas === 1);
    expect(problems).toEqual([]);
  });

  it('that is chosen may be pushed again; what is no WebAssembly may not', async () => {
    await go('wasm');
    await page.getByLabel('WebAssembly file').setInputFiles(WASM);
    await enabled('Push and run').click();
    await page.getByRole('textbox', { name: 'Image' }).waitFor();
    await go('wasm');
    await page.getByLabel('WebAssembly file').setInputFiles({ name: 'a.wasm', mimeType: 'application/wasm', buffer: Buffer.from('#!/bin/sh') });
    await page.getByRole('alert').getByText('is not a WebAssembly component', { exact: false }).waitFor();
    await page.locator('button[aria-disabled]', { hasText: 'Push and run' }).waitFor();
  });
});
