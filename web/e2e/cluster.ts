// Objects that tests make: a namespace of their own, an app in it, tokens of users with few rights.
import type { Page } from 'playwright-core';
import { api, WAIT } from './browser';

export async function until<T>(what: string, ask: () => Promise<T | undefined | false>): Promise<T> {
  const end = Date.now() + 2 * WAIT;
  let last: unknown;
  while (Date.now() < end) {
    const found = await ask().catch((error: unknown) => void (last = error));
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`gave up waiting for ${what}; last: ${String(last)}`);
}

export async function makeNamespace(page: Page, prefix: string): Promise<string> {
  const name = `${prefix}-${Date.now().toString(36)}`;
  await api(page, 'POST', '/api/v1/namespaces', { metadata: { name } });
  await until('the ServiceAccount of the namespace', async () => (await api(page, 'GET', `/api/v1/namespaces/${name}/serviceaccounts/default`)).code === 200);
  return name;
}

export const removeNamespace = (page: Page, name: string) => api(page, 'DELETE', `/api/v1/namespaces/${name}`);

/** The image of the hello example, which the cluster under test runs. */
export async function helloImage(page: Page): Promise<string> {
  const { body } = await api(page, 'GET', '/apis/apps/v1/namespaces/default/deployments/hello');
  const image = (body as unknown as { spec?: { template: { spec: { containers: { image: string }[] } } } }).spec?.template.spec.containers[0]?.image;
  if (!image) throw new Error('the cluster must run the hello example in namespace default');
  return image;
}

export function deployment(name: string, image: string, replicas = 1) {
  const labels = { app: name };
  return { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name, labels }, spec: { replicas, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers: [{ name: 'app', image, ports: [{ name: 'http', containerPort: 8080 }], readinessProbe: { httpGet: { path: '/healthz', port: 'http' }, periodSeconds: 1 } }] } } } };
}

export const configMap = (name: string, data: Record<string, string> = {}, metadata = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ...metadata }, data });

/** A token of a fresh ServiceAccount that a cluster role was bound to, in one namespace or in all. */
export async function tokenFor(page: Page, namespace: string, name: string, clusterRole: string, everywhere = true): Promise<string> {
  await api(page, 'POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } });
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: clusterRole };
  const subjects = [{ kind: 'ServiceAccount', name, namespace }];
  const base = '/apis/rbac.authorization.k8s.io/v1';
  if (everywhere) await api(page, 'POST', `${base}/clusterrolebindings`, { metadata: { name: `${namespace}-${name}` }, roleRef, subjects });
  else await api(page, 'POST', `${base}/namespaces/${namespace}/rolebindings`, { metadata: { name }, roleRef, subjects });
  const { body } = await api(page, 'POST', `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`, { spec: { expirationSeconds: 3600 } });
  return (body as unknown as { status: { token: string } }).status.token;
}
