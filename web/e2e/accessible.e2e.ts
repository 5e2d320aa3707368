// The main pages hold to WCAG 2 A and AA as far as axe can tell, in both themes; and a terminal over a made-up exec.
import axe from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, openPage, startServer, type Server } from './browser';
import { until } from './cluster';

let server: Server;
let browser: Browser;
const pages: Record<string, Page> = {};
let pod: string;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  pages['light'] = (await openPage(browser, server)).page;
  pages['dark'] = (await openPage(browser, server, { dark: true })).page;
  const { items } = await (await pages['light'].request.get(`${server.url}/kube/api/v1/namespaces/default/pods`)).json();
  pod = items[0].metadata.name;
});
afterAll(async () => {
  await browser.close();
  await server.stop();
});

interface Violation {
  id: string;
  nodes: { html: string; failureSummary?: string }[];
}

async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const found = await page.evaluate(async () => {
    const run = (window as unknown as { axe: { run(node: Document, options: unknown): Promise<{ violations: Violation[] }> } }).axe;
    return (await run.run(document, { runOnly: ['wcag2a', 'wcag2aa'] })).violations;
  });
  return found.flatMap((violation) => violation.nodes.slice(0, 3).map((node) => `${violation.id}: ${node.html.slice(0, 160)} ${node.failureSummary?.split('\n')[1]?.trim() ?? ''}`));
}

const PATHS = ['/', '/list/core/pods?ns=*', '/workloads', '/events?ns=*', '/kinds', '/access?view=who', '/map?ns=default', '/create', '/create/app', '/create/wasm', 'POD', 'POD/logs', 'POD/terminal', 'POD/connect', 'POD/yaml', 'POD/use', '/object/apps/deployments/default/hello', '/object/apps/deployments/default/hello/revisions'];

describe.each(['light', 'dark'])('in the %s theme', (theme) => {
  it.each(PATHS)('%s', async (path) => {
    const page = pages[theme]!;
    await page.goto(server.url + path.replace('POD', `/object/core/pods/default/${pod}`));
    await page.waitForFunction(() => document.querySelector('#page h1') && !document.querySelector('.loading'));
    expect(await violations(page)).toEqual([]);
  });

  it('dialogs', async () => {
    const page = pages[theme]!;
    await page.goto(`${server.url}/object/apps/deployments/default/hello`);
    for (const action of ['scale', 'delete', 'rollback']) {
      await page.locator(`[data-action=${action}]:not([aria-disabled])`).click();
      await page.getByRole('dialog').waitFor();
      expect(await violations(page)).toEqual([]);
      await page.keyboard.press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
    }
  });
});

describe('a terminal', () => {
  it('shows what the program writes, sends what is typed and the size, and tells how it ended', async () => {
    const page = pages['light']!;
    const received: Buffer[] = [];
    let end: (() => void) | undefined;
    await page.routeWebSocket(/\/exec\?/, (socket) => {
      const channel = (number: number, text: string) => socket.send(Buffer.concat([Buffer.from([number]), Buffer.from(text)]));
      socket.onMessage((message) => received.push(Buffer.from(message as Buffer)));
      setTimeout(() => channel(1, 'hello from the program\r\n'), 100);
      end = () => {
        channel(3, JSON.stringify({ status: 'Failure', message: 'command terminated with non-zero exit code: 3' }));
        void socket.close({ code: 1000 });
      };
    });
    await page.goto(`${server.url}/object/core/pods/default/${pod}/terminal`);
    await page.locator('button:not([aria-disabled])', { hasText: 'Open' }).click();
    await page.locator('.xterm-rows').getByText('hello from the program').waitFor();
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.type('ls');
    await until('the size and the typed text', async () => received.some((message) => message[0] === 4 && message.toString().includes('Width')) && Buffer.concat(received.filter((message) => message[0] === 0).map((message) => message.subarray(1))).toString() === 'ls');
    end!();
    await page.getByText('command terminated with non-zero exit code: 3').waitFor();
  });
});
