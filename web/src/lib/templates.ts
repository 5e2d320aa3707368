// The YAML that the forms of the create page make. It is shown before it is applied, so nothing is hidden in a form.
import { toYaml } from './yaml';

export interface AppForm {
  name: string;
  namespace: string;
  image: string;
  replicas: number;
  port?: number;
  expose: 'no' | 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  memory: string;
  cpu: string;
  variables: [name: string, value: string][];
}

const NAME = 'app.kubernetes.io/name';
const join = (documents: unknown[]) => documents.map((document) => toYaml(JSON.parse(JSON.stringify(document)))).join('---\n');

function service(name: string, namespace: string, selector: Record<string, string>, port: number, targetPort: number | string, type: string) {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace, labels: selector }, spec: { type, selector, ports: [{ name: 'http', port, targetPort }] } };
}

export function appYaml(form: AppForm): string {
  const labels = { [NAME]: form.name };
  const container = {
    name: form.name,
    image: form.image,
    ports: form.port ? [{ name: 'http', containerPort: form.port }] : undefined,
    env: form.variables.length ? form.variables.map(([name, value]) => ({ name, value })) : undefined,
    resources: { requests: { cpu: form.cpu || undefined, memory: form.memory || undefined }, limits: form.memory ? { memory: form.memory } : undefined },
  };
  const deployment = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: form.name, namespace: form.namespace, labels },
    spec: { replicas: form.replicas, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers: [container] } } },
  };
  const exposed = form.port && form.expose !== 'no' ? [service(form.name, form.namespace, labels, 80, 'http', form.expose)] : [];
  return join([deployment, ...exposed]);
}

export const exposeYaml = (form: { name: string; namespace: string; selector: Record<string, string>; port: number; targetPort: number | string; type: string }): string =>
  join([service(form.name, form.namespace, form.selector, form.port, form.targetPort, form.type)]);

export function configYaml(form: { kind: 'ConfigMap' | 'Secret'; name: string; namespace: string; entries: [key: string, value: string][] }): string {
  const data = Object.fromEntries(form.entries);
  return join([{ apiVersion: 'v1', kind: form.kind, metadata: { name: form.name, namespace: form.namespace }, ...(form.kind === 'Secret' ? { type: 'Opaque', stringData: data } : { data }) }]);
}

const DNS = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Why a text is no name for most objects; undefined when it is. */
export const nameProblem = (name: string): string | undefined =>
  DNS.test(name) ? undefined : 'A name has lower-case letters, digits and “-”, begins and ends with a letter or digit, and is at most 63 long.';
