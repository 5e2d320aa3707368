// What the end-to-end tests share: the server under test, a browser, signed-in pages, and kubectl-free API calls.
//
// WINDLASS_DASHBOARD_LOGIN is a login link of a dashboard that runs (see global_setup.ts); without it the development
// server is started against WINDLASS_KUBECONFIG.
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';

export const WAIT = 15_000;
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--enable-precise-memory-info'];

export interface Server {
  url: string;
  /** A login link that works once. */
  link(): Promise<string>;
  stop(): Promise<void>;
}

export async function startServer(): Promise<Server> {
  const running = process.env['WINDLASS_DASHBOARD_URL'];
  if (running) {
    const none = () => {
      throw new Error('a dashboard that runs already is left as it is');
    };
    return { url: running, link: none, stop: () => Promise.resolve() };
  }
  const kubeconfig = process.env['WINDLASS_KUBECONFIG'];
  if (!kubeconfig) throw new Error('set WINDLASS_KUBECONFIG to the kubeconfig of a cluster that may be changed');
  const script = fileURLToPath(new URL('../dev/server.mjs', import.meta.url));
  const child = spawn(process.execPath, [script, '--kubeconfig', kubeconfig], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async (word: string) => {
    const { value, done } = await lines.next();
    if (done || !String(value).startsWith(`${word} `)) throw new Error(`the development server said: ${value}`);
    return String(value).slice(word.length + 1);
  };
  const url = await next('dashboard');
  let ready: string | undefined = await next('login');
  const link = async () => {
    const first = ready;
    ready = undefined;
    if (first) return first;
    child.stdin!.write('link\n');
    return next('login');
  };
  return { url, link, stop: () => stopped(child) };
}

function stopped(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill();
  });
}

export const launch = (): Promise<Browser> => chromium.launch({ executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium', args: FLAGS });

/** Tells every refusal of the Content-Security-Policy, but for style attributes that Chromium's own editing of an editable line tries to set. */
function reportViolations() {
  document.addEventListener('securitypolicyviolation', (event) => {
    const target = event.target as Element;
    if (event.violatedDirective === 'style-src-attr' && target.closest?.('.cm-content')) return;
    console.warn(`Refused by policy: ${event.violatedDirective} on ${location.pathname} at ${target.outerHTML?.slice(0, 200)}`);
  });
}

/** Problems that a page met: thrown errors, and whatever the Content-Security-Policy refused. */
export function watchProblems(page: Page): string[] {
  const problems: string[] = [];
  page.on('pageerror', (error) => problems.push(`thrown: ${error.message}`));
  page.on('console', (message) => {
    if (/^Refused by policy|Maximum update depth|unique "key"/.test(message.text())) problems.push(message.text());
  });
  return problems;
}

export interface Opened {
  context: BrowserContext;
  page: Page;
  problems: string[];
}

export async function openPage(browser: Browser, server: Server, options: { token?: string; width?: number; height?: number; dark?: boolean } = {}): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width: options.width ?? 1280, height: options.height ?? 800 }, colorScheme: options.dark ? 'dark' : 'light', acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT);
  const problems = watchProblems(page);
  await page.addInitScript(reportViolations);
  const token = options.token ?? process.env['WINDLASS_DASHBOARD_TOKEN'];
  if (token) {
    await page.goto(`${server.url}/signin`);
    await page.getByLabel('Bearer token').fill(token);
    await page.getByRole('button', { name: 'Sign in' }).click();
  } else {
    await page.goto(await server.link());
  }
  await page.getByRole('heading', { name: /^Overview/ }).waitFor();
  return { context, page, problems };
}

/** A request to the API with the page's session. */
export async function api(page: Page, method: string, path: string, body?: unknown, type = 'application/json'): Promise<{ code: number; body: Record<string, never> & { [key: string]: unknown } }> {
  const response = await page.request.fetch(new URL(`/kube${path}`, page.url()).href, { method, headers: { 'X-Windlass-Request': '1', 'Content-Type': type }, data: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  return { code: response.status(), body: text.startsWith('{') ? JSON.parse(text) : { text } };
}
