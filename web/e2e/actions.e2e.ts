// Every action does what it says to a real cluster; edits show their difference, conflicts are merged or marked.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { api, launch, openPage, startServer, type Server } from './browser';
import { configMap, deployment, helloImage, makeNamespace, removeNamespace, until } from './cluster';

const MERGE = 'application/merge-patch+json';

let server: Server;
let browser: Browser;
let page: Page;
let problems: string[];
let namespace: string;
let image: string;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
  ({ page, problems } = await openPage(browser, server));
  namespace = await makeNamespace(page, 'actions');
  image = await helloImage(page);
  await api(page, 'POST', `/apis/apps/v1/namespaces/${namespace}/deployments`, deployment('web', image));
});
afterAll(async () => {
  await removeNamespace(page, namespace);
  await browser.close();
  await server.stop();
});

// eslint-disable-next-line @typescript-eslint/no-explicit-any
const read = async (path: string): Promise<any> => (await api(page, 'GET', path)).body;
const web = () => read(`/apis/apps/v1/namespaces/${namespace}/deployments/web`);
const go = (path: string) => page.goto(`${server.url}${path}`);
const action = (id: string) => page.locator(`[data-action="${id}"]:not([aria-disabled])`);
const inDialog = (name: string | RegExp) => page.getByRole('dialog').getByRole('button', { name });

async function confirm(id: string, button: string | RegExp) {
  await action(id).click();
  await inDialog(button).click();
  await page.getByRole('dialog').waitFor({ state: 'detached' });
}

describe('a Deployment', () => {
  beforeAll(() => go(`/object/apps/deployments/${namespace}/web`));

  it('scales', async () => {
    await action('scale').click();
    await page.getByLabel(/Replicas/).fill('2');
    await inDialog('Scale to 2').click();
    await until('two replicas', async () => (await web()).status.readyReplicas === 2);
    await page.getByText('2/2').first().waitFor();
  });

  it('pauses and resumes', async () => {
    await confirm('pause', 'Pause');
    await page.locator('.badge').getByText('Paused').first().waitFor();
    expect((await web()).spec.paused).toBe(true);
    await confirm('resume', 'Resume');
    await until('resumed', async () => !(await web()).spec.paused);
  });

  it('restarts', async () => {
    await confirm('restart', 'Restart');
    await until('the annotation', async () => (await web()).spec.template.metadata.annotations?.['kubectl.kubernetes.io/restartedAt']);
  });

  it('rolls back to an earlier revision, whose difference it shows', async () => {
    await until('a second revision', async () => Number((await web()).metadata.annotations['deployment.kubernetes.io/revision']) >= 2);
    await action('rollback').click();
    await page.getByRole('dialog').locator('.diff-removed').filter({ hasText: 'restartedAt' }).waitFor();
    await inDialog(/Roll back to revision 1/).click();
    await until('the template of revision 1', async () => !(await web()).spec.template.metadata.annotations?.['kubectl.kubernetes.io/restartedAt']);
  });

  it('shows its revisions', async () => {
    await go(`/object/apps/deployments/${namespace}/web/revisions`);
    await page.getByText('newest').waitFor();
    await page.locator('.diff').waitFor();
  });
});

describe.each([
  ['StatefulSet', 'statefulsets', { serviceName: 'none' }],
  ['DaemonSet', 'daemonsets', {}],
] as const)('a %s', (kind, resource, more) => {
  const path = () => `/apis/apps/v1/namespaces/${namespace}/${resource}/kept`;
  const templateNow = async () => (await read(path())).spec.template;

  it('rolls back to a revision that was picked by its difference', async () => {
    const { selector, template } = deployment(`kept-${resource}`, image).spec;
    const made = await api(page, 'POST', `/apis/apps/v1/namespaces/${namespace}/${resource}`, { metadata: { name: 'kept' }, spec: { ...more, selector, template } });
    expect(made.code, JSON.stringify(made.body)).toBe(201);
    const revisions = async () => (await read(`/apis/apps/v1/namespaces/${namespace}/controllerrevisions?labelSelector=app=kept-${resource}`)).items.length;
    await until('the first revision', async () => (await revisions()) === 1);
    for (const [index, colour] of ['red', 'blue'].entries()) {
      await api(page, 'PATCH', path(), { spec: { template: { metadata: { annotations: { colour } } } } }, MERGE);
      await until(`revision ${index + 2}`, async () => (await revisions()) === index + 2);
    }
    await go(`/object/apps/${resource}/${namespace}/kept`);
    await action('rollback').click();
    const dialog = page.getByRole('dialog');
    await dialog.locator('.diff-added').filter({ hasText: 'colour: red' }).waitFor();
    await dialog.getByRole('radio', { name: /Revision 1/ }).check();
    await dialog.locator('.diff-removed').filter({ hasText: 'colour: blue' }).waitFor();
    await inDialog(/Roll back to revision 1/).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await until('the first template', async () => !(await templateNow()).metadata.annotations?.colour);
    expect(JSON.stringify(await templateNow())).not.toContain('$patch');
  });

  it('shows what each revision changed', async () => {
    await go(`/object/apps/${resource}/${namespace}/kept/revisions`);
    await page.getByText('newest').waitFor();
    await page.getByRole('radio', { name: '2', exact: true }).check();
    await page.getByRole('heading', { name: 'What revision 2 changed since 1' }).or(page.getByRole('heading', { name: /^Revision 2, the oldest kept/ })).waitFor();
    expect(await page.getByRole('heading', { level: 1 }).textContent(), kind).toBe('kept');
  });
});

describe('YAML', () => {
  const path = () => `/api/v1/namespaces/${namespace}/configmaps/edited`;
  const type = async (find: string, replacement: string) => {
    // Through the editor's own text, so that its change handler runs.
    await page.locator('.cm-line').filter({ hasText: find }).first().click();
    // Home stops behind the indentation.
    await page.keyboard.press('Home');
    await page.keyboard.press('Shift+End');
    await page.keyboard.type(replacement);
  };
  const edit = async () => {
    await go(`/object/core/configmaps/${namespace}/edited/yaml`);
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await page.locator('.cm-content[contenteditable=true]').waitFor();
  };
  beforeAll(() => api(page, 'POST', `/api/v1/namespaces/${namespace}/configmaps`, configMap('edited', { a: '1', b: '2', c: '3', d: '4', e: '5' })));

  it('is changed after a dry run and a difference', async () => {
    await edit();
    await type('a: "1"', 'a: changed');
    await page.getByRole('button', { name: 'Review changes' }).click();
    await page.getByRole('dialog').locator('.diff-added').filter({ hasText: 'changed' }).waitFor();
    await inDialog('Apply').click();
    await until('the change', async () => (await read(path())).data.a === 'changed');
  });

  it('says what the server refuses, and changes nothing', async () => {
    await edit();
    await type('name: edited', 'name: other');
    await page.getByRole('button', { name: 'Review changes' }).click();
    await page.getByRole('alert').getByText('Not applied.').waitFor();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
  });

  it('merges a change that others made meanwhile', async () => {
    await edit();
    await type('a: changed', 'a: mine');
    await api(page, 'PATCH', path(), { data: { e: 'theirs' } }, MERGE);
    await page.getByText('It has changed on the server since you began', { exact: false }).waitFor();
    await page.getByRole('button', { name: 'Review changes' }).click();
    await inDialog('Use the merged text').click();
    await page.getByRole('button', { name: 'Review changes' }).click();
    await inDialog('Apply').click();
    const { data } = await until('both changes', async () => { const found = await read(path()); return found.data.a === 'mine' && found; });
    expect(data.e).toBe('theirs');
  });

  it('marks lines that both changed', async () => {
    await edit();
    await type('a: mine', 'a: mine again');
    await api(page, 'PATCH', path(), { data: { a: 'theirs' } }, MERGE);
    await page.getByText('It has changed on the server since you began', { exact: false }).waitFor();
    await page.getByRole('button', { name: 'Review changes' }).click();
    await page.getByText('Both changed the same lines in 1 places', { exact: false }).waitFor();
    await inDialog('Drop mine, take theirs').click();
    await page.getByRole('button', { name: 'Cancel' }).click();
  });

  it('keeps an open page when its object is deleted', async () => {
    await go(`/object/core/configmaps/${namespace}/edited`);
    await page.getByRole('heading', { name: 'edited' }).waitFor();
    await api(page, 'DELETE', path());
    await page.getByText('was deleted on the server', { exact: false }).waitFor();
    await page.getByText('theirs').first().waitFor();
  });
});

describe('other actions', () => {
  it('a CronJob suspends, resumes, and runs now', async () => {
    const spec = { schedule: '0 0 1 1 *', jobTemplate: { spec: { template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image }] } } } } };
    await api(page, 'POST', `/apis/batch/v1/namespaces/${namespace}/cronjobs`, { metadata: { name: 'nightly' }, spec });
    await go(`/object/batch/cronjobs/${namespace}/nightly`);
    await confirm('suspend', 'Suspend');
    await confirm('unsuspend', 'Resume');
    await confirm('trigger', 'Run now');
    await page.locator('.tree').getByRole('link', { name: /^nightly-manual-/ }).first().waitFor();
  });

  it('a pod is deleted', async () => {
    const { items } = await read(`/api/v1/namespaces/${namespace}/pods?labelSelector=app=web`);
    await go(`/object/core/pods/${namespace}/${items[0].metadata.name}`);
    await action('delete').click();
    await inDialog('Delete Pod').click();
    await page.getByText(/was deleted on the server|Being deleted/).first().waitFor();
  });

  it('deleting with “orphan” leaves dependents', async () => {
    await api(page, 'POST', `/apis/apps/v1/namespaces/${namespace}/deployments`, deployment('orphaned', image));
    const sets = async () => (await read(`/apis/apps/v1/namespaces/${namespace}/replicasets?labelSelector=app=orphaned`)).items;
    await until('its ReplicaSet', async () => (await sets()).length === 1);
    await go(`/object/apps/deployments/${namespace}/orphaned`);
    await action('delete').click();
    await page.getByRole('radio', { name: /orphan/ }).check();
    await inDialog('Delete Deployment').click();
    await page.getByText('was deleted on the server', { exact: false }).waitFor();
    expect((await sets())[0].metadata.ownerReferences ?? []).toEqual([]);
  });

  it('deleting in the foreground waits for dependents, which go first', async () => {
    await api(page, 'POST', `/apis/apps/v1/namespaces/${namespace}/deployments`, deployment('whole', image));
    const pods = async () => (await read(`/api/v1/namespaces/${namespace}/pods?labelSelector=app=whole`)).items;
    await until('its pod', async () => (await pods()).length === 1);
    await go(`/object/apps/deployments/${namespace}/whole`);
    await action('delete').click();
    await page.getByRole('radio', { name: /foreground/ }).check();
    await inDialog('Delete Deployment').click();
    await page.getByText('was deleted on the server', { exact: false }).waitFor();
    expect(await pods()).toEqual([]);
  });

  it('a node is cordoned, drained, and uncordoned', async () => {
    const node = (await read('/api/v1/nodes')).items[0].metadata.name as string;
    await go(`/object/core/nodes/-/${node}`);
    await confirm('cordon', 'Cordon');
    await page.locator('.badge').getByText('Cordoned').first().waitFor();
    await action('drain').click();
    await inDialog('Drain node').click();
    await page.getByRole('dialog').getByText('Done.').waitFor();
    await inDialog('Close').last().click();
    await confirm('uncordon', 'Uncordon');
    await until('pods that run again', async () => (await web()).status.readyReplicas === 2);
  });
});

describe('of a workload', () => {
  it('logs of all pods of a workload are read', async () => {
    await go(`/object/apps/deployments/${namespace}/web/logs`);
    await page.getByText('All 2 containers').waitFor({ state: 'attached' });
    await page.getByRole('log').waitFor();
  });

  it('a terminal connects or says why not', async () => {
    const { items } = await read(`/api/v1/namespaces/${namespace}/pods?labelSelector=app=web`);
    await go(`/object/core/pods/${namespace}/${items[0].metadata.name}/terminal`);
    await page.locator('button:not([aria-disabled])', { hasText: 'Open' }).click();
    await page.locator('.xterm-screen').waitFor();
    await page.locator('.note').getByText(/Connected|ended|closed|exec|501|not|refused/i).first().waitFor();
    expect(problems).toEqual([]);
  });
});
