// What the dashboard does inside a pod, against a real node: terminals, files of volumes, debug containers, resize.
//
// WINDLASS_E2E_PROGRAM is the reference of the image of `tests/guests/probe`, pushed to the cluster under test.
import { readFile } from 'node:fs/promises';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Opened, type Server } from './browser';
import { makeNamespace, removeNamespace, until } from './cluster';

const image = process.env['WINDLASS_E2E_PROGRAM'];

describe.skipIf(!image)('inside a pod', () => {
  let server: Server;
  let browser: Browser;
  let opened: Opened;
  let namespace: string;

  beforeAll(async () => {
    server = await startServer();
    browser = await launch();
    opened = await openPage(browser, server);
    const { page } = opened;
    namespace = await makeNamespace(page, 'tools');
    const container = { name: 'app', image, args: ['cat'], stdin: true, volumeMounts: [{ name: 'data', mountPath: '/data' }], resources: { requests: { cpu: '10m', memory: '8Mi' }, limits: { memory: '64Mi' } }, lifecycle: { preStop: { sleep: { seconds: 1 } } } };
    const made = await api(page, 'POST', `/api/v1/namespaces/${namespace}/pods`, { metadata: { name: 'box' }, spec: { terminationGracePeriodSeconds: 2, containers: [container], volumes: [{ name: 'data', emptyDir: {} }] } });
    expect(made.code, JSON.stringify(made.body)).toBe(201);
    await until('a running pod', async () => (await pod()).status.phase === 'Running');
  });
  afterAll(async () => {
    await removeNamespace(opened.page, namespace);
    await browser.close();
    await server.stop();
  });

  interface Pod {
    spec: { containers: { resources: { requests: { cpu: string } } }[]; ephemeralContainers?: { name: string; command?: string[] }[] };
    status: { phase: string };
  }
  const pod = async () => (await api(opened.page, 'GET', `/api/v1/namespaces/${namespace}/pods/box`)).body as unknown as Pod;
  const go = (tab: string) => opened.page.goto(`${server.url}/object/core/pods/${namespace}/box/${tab}`);
  const page = () => opened.page.locator('#page');
  const run = async (line: string) => {
    await page().getByLabel('Program and arguments').fill(line);
    await page().getByRole('button', { name: 'Open' }).click();
  };

  it('a terminal shows what a program says, its exit code, and why another is not found', async () => {
    await go('terminal');
    await run('app args one "two three"');
    await page().getByText('The program ended with exit code 0.').waitFor();
    await page().locator('.xterm').getByText('one,two three').first().waitFor();
    // WASI 0.2 tells only that a program failed, which the node gives code 1.
    await run('app exit 3');
    await page().getByText('The program ended with exit code 1.').waitFor();
    await run('/bin/sh');
    await page().getByText(/executable file not found/).waitFor();
    expect(opened.problems).toEqual([]);
  });

  it('a terminal echoes what is typed, and Ctrl-C ends the program', async () => {
    await go('terminal');
    await run('app cat');
    await page().getByText('Connected.').waitFor();
    await opened.page.keyboard.type('typed here');
    await page().locator('.xterm').getByText('typed here').first().waitFor();
    await opened.page.keyboard.press('Control+c');
    await page().getByText('The program ended with exit code 130.').waitFor();
  });

  it('attach reaches the program that runs', async () => {
    await go('terminal');
    await page().getByLabel('Mode').selectOption('attach');
    await page().getByRole('button', { name: 'Open' }).click();
    await page().getByText('Connected.').waitFor();
    await page().getByRole('button', { name: 'Close' }).click();
    expect((await pod()).status.phase).toBe('Running');
  });

  it('files are uploaded, listed, read and downloaded', async () => {
    await go('volumes');
    await page().getByRole('button', { name: 'List files' }).click();
    await page().getByLabel('File to upload').setInputFiles({ name: 'note.txt', mimeType: 'text/plain', buffer: Buffer.from('written in a browser') });
    await page().getByRole('button', { name: 'note.txt', exact: true }).click();
    await page().getByText('written in a browser').waitFor();
    const [saved] = await Promise.all([opened.page.waitForEvent('download'), page().getByRole('button', { name: 'Download note.txt' }).click()]);
    expect(await readFile(await saved.path(), 'utf8')).toBe('written in a browser');
    await page().getByLabel('File to upload').setInputFiles({ name: 'n'.repeat(101), mimeType: 'text/plain', buffer: Buffer.from('') });
    await page().getByRole('alert').getByText(/1 to 100 bytes/).waitFor();
    expect(opened.problems).toEqual([]);
  });

  it('resize: a dry run changes nothing, then the pod is changed as it runs', async () => {
    await go('');
    await page().getByText('sleeps 1 s').waitFor();
    await opened.page.locator('[data-action=resize]').click();
    const dialog = opened.page.getByRole('dialog');
    await dialog.getByLabel(/^CPU request/).fill('20m');
    await dialog.getByRole('button', { name: 'Dry run' }).click();
    await dialog.getByText(/The server would take it/).waitFor();
    expect((await pod()).spec.containers[0]!.resources.requests.cpu).toBe('10m');
    await dialog.getByRole('button', { name: 'Resize', exact: true }).click();
    await dialog.waitFor({ state: 'detached' });
    expect((await pod()).spec.containers[0]!.resources.requests.cpu).toBe('20m');
  });

  it('a debug container is added with a command and attached to', async () => {
    await go('terminal');
    await page().getByText('Add a debug container').click();
    await page().getByLabel('Image of the debug container').fill(image!);
    await page().getByLabel('Command of the debug container').fill('probe cat');
    await page().getByRole('button', { name: 'Add and attach' }).click();
    await page().getByText('Connected.').waitFor();
    const [added] = (await pod()).spec.ephemeralContainers ?? [];
    expect(added?.command).toEqual(['probe', 'cat']);
    expect(await page().getByLabel('Container', { exact: true }).inputValue()).toBe(added!.name);
  });
});
