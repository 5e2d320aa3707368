// Logs of real pods: what is followed goes on after a lost connection, without a gap and without a line twice; the
// previous instance of a container; several pods together.
//
// WINDLASS_E2E_PROGRAM is the reference of the image of `tests/guests/probe`, as in pod_tools.e2e.ts.
import http from 'node:http';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Opened, type Server } from './browser';
import { deployment, helloImage, makeNamespace, removeNamespace, until } from './cluster';
import { layLine, type Line } from './line';

const program = process.env['WINDLASS_E2E_PROGRAM'];

let server: Server;
let line: Line;
let browser: Browser;
let opened: Opened;
let namespace: string;
let app: string;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  line = await layLine(server);
  opened = await openPage(browser, line.server);
  const { page } = opened;
  namespace = await makeNamespace(page, 'logs');
  const spec = deployment('web', await helloImage(page), 2);
  await api(page, 'POST', `/apis/apps/v1/namespaces/${namespace}/deployments`, spec);
  const service = await api(page, 'POST', `/api/v1/namespaces/${namespace}/services`, { metadata: { name: 'web' }, spec: { type: 'NodePort', selector: { app: 'web' }, ports: [{ port: 80, targetPort: 'http' }] } });
  const { ports } = (service.body as unknown as { spec: { ports: { nodePort: number }[] } }).spec;
  app = `http://127.0.0.1:${ports[0]!.nodePort}`;
  await until('an app that answers', async () => (await visit('/')) === 200);
});
afterAll(async () => {
  await removeNamespace(opened.page, namespace);
  await browser.close();
  await line.stop();
  await server.stop();
});

/** A request over a connection of its own: a Service keeps to one pod for as long as a connection lasts. */
const visit = (path: string) => new Promise<number>((resolve, reject) => void http.get(`${app}${path}`, { agent: false }, (answer) => answer.resume().on('end', () => resolve(answer.statusCode!))).on('error', reject));
// eslint-disable-next-line @typescript-eslint/no-explicit-any
const read = async (path: string): Promise<any> => (await api(opened.page, 'GET', path)).body;
const shown = (text: string) => opened.page.locator('.log-line').filter({ hasText: text });

describe('a log that is followed', () => {
  it('shows what several pods say as they say it', async () => {
    await opened.page.goto(`${line.server.url}/object/apps/deployments/${namespace}/web/logs`);
    await opened.page.getByText('All 2 containers').waitFor({ state: 'attached' });
    const heard = new Set<string>();
    await until('lines of both pods', async () => {
      await visit('/hello-there');
      for (const source of await shown('/hello-there').locator('.log-source').allTextContents()) heard.add(source);
      return heard.size === 2;
    });
    expect(opened.problems).toEqual([]);
  });

  it('goes on after a lost connection', async () => {
    await visit('/before-it');
    await shown('/before-it').waitFor();
    line.cut();
    await opened.page.getByText('Connection lost; reading again.').first().waitFor();
    await visit('/meanwhile');
    line.mend();
    await shown('/meanwhile').waitFor();
    await visit('/after-it');
    await shown('/after-it').waitFor();
    for (const text of ['/before-it', '/meanwhile', '/after-it']) expect(await shown(text).count(), text).toBe(1);
    await opened.page.getByText('Connection lost', { exact: false }).waitFor({ state: 'detached' });
  });
});

describe.skipIf(!program)('a container that was started again', () => {
  const pod = { metadata: { name: 'again' }, spec: { restartPolicy: 'Always', containers: [{ name: 'app', image: program, args: ['print', '3'] }] } };

  it('has the log of its previous instance', async () => {
    const made = await api(opened.page, 'POST', `/api/v1/namespaces/${namespace}/pods`, pod);
    expect(made.code, JSON.stringify(made.body)).toBe(201);
    const path = `/api/v1/namespaces/${namespace}/pods/again`;
    await until('a restart', async () => (await read(path)).status.containerStatuses?.[0]?.restartCount >= 1);
    await opened.page.goto(`${line.server.url}/object/core/pods/${namespace}/again/logs`);
    await shown('line 2').waitFor();
    const [asked] = await Promise.all([opened.page.waitForRequest(/\/log\?.*previous=true/), opened.page.getByLabel('Previous instance').check()]);
    expect(asked.url()).not.toContain('follow=true');
    await shown('line 2').waitFor();
    await opened.page.getByText(/lines, ended$/).waitFor();
    expect(await shown('warning').count()).toBe(3);
    expect(opened.problems).toEqual([]);
  });

  it('or is said to have none', async () => {
    const { items } = await read(`/api/v1/namespaces/${namespace}/pods?labelSelector=app=web`);
    await opened.page.goto(`${line.server.url}/object/core/pods/${namespace}/${items[0].metadata.name}/logs`);
    await opened.page.getByLabel('Previous instance').check();
    await opened.page.getByText(/previous terminated container .* not found/).waitFor();
  });
});
