// Every page and dialog holds to WCAG 2 A and AA as far as axe can tell, in both themes and at 1280 and 390 pixels, and
// nothing sticks out of it; and a terminal over a made-up exec.
import axe from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, openPage, startServer, type Server } from './browser';
import { until } from './cluster';

let server: Server;
let browser: Browser;
const pages: Record<string, Page> = {};
/** Addresses of the pages of a pod and of a node. */
let pod: string;
let node: string;
const WIDTHS = [1280, 390];

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  pages['light'] = (await openPage(browser, server)).page;
  pages['dark'] = (await openPage(browser, server, { dark: true })).page;
  const nameIn = async (path: string) => (await (await pages['light']!.request.get(`${server.url}/kube${path}`)).json()).items[0].metadata.name;
  pod = `/object/core/pods/default/${await nameIn('/api/v1/namespaces/default/pods?labelSelector=app.kubernetes.io/name=hello')}`;
  node = `/object/core/nodes/-/${await nameIn('/api/v1/nodes')}`;
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
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe.source);
  const found = await page.evaluate(async () => {
    const run = (window as unknown as { axe: { run(node: Document, options: unknown): Promise<{ violations: Violation[] }> } }).axe;
    return (await run.run(document, { runOnly: ['wcag2a', 'wcag2aa'] })).violations;
  });
  return found.flatMap((violation) => violation.nodes.slice(0, 3).map((node) => `${violation.id}: ${node.html.slice(0, 160)} ${node.failureSummary?.split('\n')[1]?.trim() ?? ''}`));
}

const HELLO = '/object/apps/deployments/default/hello';
const LISTS = ['core/nodes', 'core/namespaces', 'core/pods', 'core/services', 'core/secrets', 'core/configmaps', 'core/persistentvolumeclaims', 'apps/deployments', 'batch/cronjobs', 'networking.k8s.io/networkpolicies', 'rbac.authorization.k8s.io/clusterroles', 'coordination.k8s.io/leases'];
const PATHS = [
  '/', '/workloads', '/events?ns=*', '/kinds', '/access?view=who', '/access?view=can', '/access?view=subject&subject=Group%20system:masters', '/map?ns=*', '/nowhere', '/list/core/unicorns', ...LISTS.map((list) => `/list/${list}?ns=*`),
  ...['yaml', 'app', 'wasm', 'expose', 'config'].map((form) => `/create/${form}?ns=default`),
  ...['', '/logs', '/terminal', '/wasm', '/use', '/connect', '/volumes', '/events', '/yaml'].map((tab) => `POD${tab}`),
  ...['', '/logs', '/revisions', '/events', '/yaml'].map((tab) => HELLO + tab),
  ...['', '/use'].map((tab) => `NODE${tab}`), '/object/core/services/default/hello', '/object/core/services/default/hello/connect', '/object/rbac.authorization.k8s.io/clusterroles/-/view', '/object/core/configmaps/default/kube-root-ca.crt', '/object/core/pods/default/nobody',
];
/** Dialogs, by the page that has them and the action that opens them. */
const DIALOGS: [path: string, action: string][] = [[HELLO, 'scale'], [HELLO, 'restart'], [HELLO, 'delete'], [HELLO, 'rollback'], ['POD', 'resize'], ['POD', 'delete'], ['NODE', 'cordon'], ['NODE', 'drain']];

describe.each(['light', 'dark'])('in the %s theme', (theme) => {
  const show = async (path: string) => {
    const page = pages[theme]!;
    await page.goto(server.url + path.replace('POD', pod).replace('NODE', node));
    await page.waitForFunction(() => document.querySelector('#page h1, #page .empty-title') && !document.querySelector('.loading'));
    return page;
  };
  /** At both widths: what is wrong, and what sticks out. */
  const check = async (page: Page) => {
    const found: Record<number, string[]> = {};
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      const sticksOut = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      found[width] = [...(await violations(page)), ...(sticksOut > 0 ? [`${sticksOut} pixels stick out`] : [])];
    }
    await page.setViewportSize({ width: WIDTHS[0]!, height: 800 });
    expect(found).toEqual(Object.fromEntries(WIDTHS.map((width) => [width, []])));
  };

  it.each(PATHS)('%s', async (path) => check(await show(path)));

  it.each(DIALOGS)('on %s the dialog “%s”', async (path, action) => {
    const page = await show(path);
    await page.locator(`[data-action=${action}]:not([aria-disabled])`).click();
    await page.getByRole('dialog').waitFor();
    await check(page);
  });

  it('search, keys, and the menu of narrow screens', async () => {
    const page = await show('/');
    await page.keyboard.press('/');
    await page.getByRole('combobox', { name: /Search/ }).fill('hello');
    await page.getByRole('option').first().waitFor();
    await check(page);
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await check(page);
    await page.keyboard.press('Escape');
    await page.setViewportSize({ width: 390, height: 800 });
    await page.getByRole('button', { name: 'Menu' }).click();
    await page.getByRole('navigation').getByRole('link', { name: 'Nodes' }).waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByRole('navigation').getByRole('link', { name: 'Nodes' }).click();
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  it('signing in', async () => {
    const context = await browser.newContext({ colorScheme: theme as 'light' });
    const page = await context.newPage();
    await page.goto(`${server.url}/signin?error=link`);
    await page.getByRole('heading', { name: 'Sign in to Windlass' }).waitFor();
    await check(page);
    await context.close();
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
    await page.goto(`${server.url}${pod}/terminal`);
    await page.locator('button:not([aria-disabled])', { hasText: 'Open' }).click();
    await page.locator('.xterm-rows').getByText('hello from the program').waitFor();
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.type('ls');
    await until('the size and the typed text', async () => received.some((message) => message[0] === 4 && message.toString().includes('Width')) && Buffer.concat(received.filter((message) => message[0] === 0).map((message) => message.subarray(1))).toString() === 'ls');
    end!();
    await page.getByText('command terminated with non-zero exit code: 3').waitFor();
  });
});
