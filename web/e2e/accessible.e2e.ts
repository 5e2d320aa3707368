// Every page and dialog holds to WCAG 2 A and AA as far as axe can tell, in both themes and at 1280 and 390 pixels, and
// nothing sticks out of it; and a terminal over a made-up exec.
import axe from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, openPage, startServer, type Server } from './browser';
import { until } from './cluster';

let server: Server;
let browser: Browser;
let page: Page;
/** Addresses of the pages of a pod and of a node. */
let pod: string;
let node: string;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  ({ page } = await openPage(browser, server));
  const nameIn = async (path: string) => (await (await page.request.get(`${server.url}/kube${path}`)).json()).items[0].metadata.name;
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
  '/', '/workloads', '/events?ns=*', '/kinds', '/access?view=who', '/access', '/access?view=subject&subject=Group%20system:masters', '/map?ns=*', '/nowhere', '/list/core/unicorns', ...LISTS.map((list) => `/list/${list}?ns=*`),
  ...['yaml', 'app', 'wasm', 'expose', 'config'].map((form) => `/create/${form}?ns=default`),
  ...['', '/logs', '/terminal', '/wasm', '/use', '/connect', '/volumes', '/events', '/yaml'].map((tab) => `POD${tab}`),
  ...['', '/logs', '/revisions', '/events', '/yaml'].map((tab) => HELLO + tab),
  ...['', '/use'].map((tab) => `NODE${tab}`), '/object/core/services/default/hello', '/object/core/services/default/hello/connect', '/object/rbac.authorization.k8s.io/clusterroles/-/view', '/object/core/configmaps/default/kube-root-ca.crt', '/object/core/pods/default/nobody',
];
/** Dialogs, by the page that has them and the action that opens them. */
const DIALOGS: [path: string, action: string][] = [[HELLO, 'scale'], [HELLO, 'restart'], [HELLO, 'delete'], [HELLO, 'rollback'], ['POD', 'resize'], ['POD', 'delete'], ['NODE', 'cordon'], ['NODE', 'drain']];

/** What is wrong at both widths in both themes, and what sticks out. */
async function check(page: Page) {
  const found: string[] = [];
  for (const width of [390, 1280]) {
    await page.setViewportSize({ width, height: 800 });
    const sticksOut = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (sticksOut > 0) found.push(`${width}: ${sticksOut} pixels stick out`);
    for (const colorScheme of ['dark', 'light'] as const) {
      await page.emulateMedia({ colorScheme });
      found.push(...(await violations(page)).map((text) => `${width} ${colorScheme}: ${text}`));
    }
  }
  expect(found).toEqual([]);
}

/** Follows a link within the page, which is quicker than loading it. */
async function show(path: string) {
  await page.evaluate((to) => {
    history.pushState(null, '', to);
    dispatchEvent(new PopStateEvent('popstate'));
  }, path.replace('POD', pod).replace('NODE', node));
  await page.waitForFunction(() => document.querySelector('#page h1, #page .empty-title') && !document.querySelector('.loading'));
}

describe('accessible', () => {
  it.each(PATHS)('%s', async (path) => {
    await show(path);
    await check(page);
  });

  it.each(DIALOGS)('on %s the dialog “%s”', async (path, action) => {
    await show(path);
    await page.locator(`[data-action=${action}]:not([aria-disabled])`).click();
    await page.getByRole('dialog').waitFor();
    await check(page);
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
  });

  it('search, keys, and the menu of narrow screens', async () => {
    await show('/');
    await page.keyboard.press('/');
    await page.getByRole('combobox', { name: /Search/ }).fill('hello');
    await page.locator('#palette-hits li').first().waitFor();
    await check(page);
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await check(page);
    await page.keyboard.press('Escape');
    await page.setViewportSize({ width: 390, height: 800 });
    await page.getByRole('button', { name: 'Menu' }).click();
    await page.getByRole('navigation').getByRole('link', { name: 'Nodes' }).waitFor();
    for (const colorScheme of ['dark', 'light'] as const) {
      await page.emulateMedia({ colorScheme });
      expect(await violations(page)).toEqual([]);
    }
    await page.getByRole('navigation').getByRole('link', { name: 'Nodes' }).click();
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  it('the theme that was chosen stands, whatever the system says', async () => {
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const seen: Record<string, string> = {};
    for (const theme of ['light', 'dark'] as const) {
      await page.getByLabel('Theme').filter({ visible: true }).selectOption(theme);
      await page.emulateMedia({ colorScheme: theme === 'light' ? 'dark' : 'light' });
      seen[theme] = await background();
      expect(await violations(page)).toEqual([]);
    }
    expect(seen['light']).not.toBe(seen['dark']);
    await page.getByLabel('Theme').filter({ visible: true }).selectOption('system');
    await until('the light of the system', async () => (await background()) === seen['light']);
  });

  it('signing in', async () => {
    const context = await browser.newContext();
    const anonymous = await context.newPage();
    await anonymous.goto(`${server.url}/signin?error=link`);
    await anonymous.getByRole('heading', { name: 'Sign in to Windlass' }).waitFor();
    await check(anonymous);
    await context.close();
  });
});

describe('a terminal', () => {
  it('shows what the program writes, sends what is typed and the size, and tells how it ended', async () => {
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
