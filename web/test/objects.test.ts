// YAML, routes, links, discovery, rights, health, roles, the map.
import { describe, expect, it } from 'vitest';
import { parseWarnings } from '../src/api/client';
import { flatten } from '../src/api/discovery';
import { sha256, wasmKind, wrap } from '../src/api/registry';
import { allows } from '../src/api/rights';
import { podHealth } from '../src/kinds/pod_status';
import { safeLink } from '../src/lib/links';
import { layoutMap } from '../src/lib/map_layout';
import { whoCan } from '../src/lib/rbac';
import { appYaml, nameProblem } from '../src/lib/templates';
import { editable, parseYaml, pathAtLine, toYaml } from '../src/lib/yaml';
import { match } from '../src/router';

describe('YAML', () => {
  it('takes Lists apart and names the line of an error', () => {
    const { objects, errors } = parseYaml('apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\nkind: Pod\n---\na: [\n');
    expect(objects.map((object) => object.metadata.name)).toEqual(['a']);
    expect(errors.map((error) => error.line)).toEqual([6, 9]);
  });
  it('keeps what people edit, in kubectl’s order', () => {
    const object = { spec: { a: 1 }, status: { b: 2 }, kind: 'X', apiVersion: 'v1', metadata: { name: 'n', uid: 'u', resourceVersion: '1', managedFields: [] } };
    expect(toYaml(editable(object))).toBe('apiVersion: v1\nkind: X\nmetadata:\n  name: n\nspec:\n  a: 1\n');
  });
  it('finds the path of a key by indentation, through lists', () => {
    const lines = 'spec:\n  template:\n    spec:\n      containers:\n      - name: a\n        image: b\n      - name: c\n        ports:\n        - containerPort: 1'.split('\n');
    expect(pathAtLine(lines, 5)).toEqual(['spec', 'template', 'spec', 'containers', 'image']);
    expect(pathAtLine(lines, 4)).toEqual(['spec', 'template', 'spec', 'containers', 'name']);
    expect(pathAtLine(lines, 8)).toEqual(['spec', 'template', 'spec', 'containers', 'ports', 'containerPort']);
  });
});

describe('addresses', () => {
  it('match patterns and decode names', () => {
    expect(match('/object/:group/:name/:tab?', '/object/core/a%3Ab.c')).toEqual({ group: 'core', name: 'a:b.c' });
    expect(match('/', '/x')).toBeUndefined();
    expect(match('/a/:b', '/a/%E0%A4%A')).toBeUndefined();
  });
  it.each([['https://example.org/x', true], ['http://a', true], ['javascript:alert(1)', false], ['data:text/html,x', false], ['//example.org', false], [' https://x', false]])('%s may be a link: %s', (text, may) => expect(safeLink(text) !== undefined).toBe(may));
});

describe('the API', () => {
  it('reads Warning headers', () => expect(parseWarnings('299 - "one \\"quoted\\"", 299 - "two"')).toEqual(['one "quoted"', 'two']));
  it('flattens discovery, first version first', () => {
    const resources = (version: string) => ({ version, resources: [{ resource: 'things', scope: 'Namespaced', verbs: ['list'], responseKind: { kind: 'Thing' }, subresources: [{ subresource: 'scale' }] }] });
    expect(flatten([{ metadata: { name: 'g' }, versions: [resources('v2'), resources('v1')] }])).toMatchObject([{ group: 'g', version: 'v2', kind: 'Thing', namespaced: true, subresources: ['scale'] }]);
  });
  it('judges rules', () => {
    const rules = [{ verbs: ['get', 'list'], apiGroups: [''], resources: ['pods'] }, { verbs: ['*'], apiGroups: ['apps'], resources: ['*'], resourceNames: ['only'] }];
    expect(allows(rules, 'list', '', 'pods')).toBe(true);
    expect(allows(rules, 'delete', '', 'pods')).toBe(false);
    expect(allows(rules, 'list', 'apps', 'deployments')).toBe(false);
  });
});

describe('pods', () => {
  const running = { name: 'c', image: '', restartCount: 0, state: { running: {} } };
  it.each([
    ['Running', { phase: 'Running', containerStatuses: [{ ...running, ready: true }] }, 'ok'],
    ['Not ready', { phase: 'Running', containerStatuses: [{ ...running, ready: false }] }, 'warn'],
    ['CrashLoopBackOff', { phase: 'Running', containerStatuses: [{ ...running, ready: false, state: { waiting: { reason: 'CrashLoopBackOff' } } }] }, 'bad'],
    ['Init:0/1', { phase: 'Pending', initContainerStatuses: [{ ...running, ready: false }] }, 'busy'],
    ['Unschedulable', { phase: 'Pending', conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }] }, 'bad'],
    ['Completed', { phase: 'Succeeded', containerStatuses: [{ ...running, ready: false, state: { terminated: { reason: 'Completed', exitCode: 0 } } }] }, 'idle'],
  ])('%s', (text, status, level) => expect(podHealth({ metadata: { name: 'p' }, spec: { containers: [{}] }, status })).toMatchObject({ text, level }));
});

describe('roles', () => {
  const data = {
    clusterRoles: [{ metadata: { name: 'view' }, rules: [{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }] }],
    roles: [{ metadata: { name: 'one', namespace: 'a' }, rules: [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'], resourceNames: ['x'] }] }],
    clusterRoleBindings: [{ metadata: { name: 'all' }, roleRef: { kind: 'ClusterRole', name: 'view' }, subjects: [{ kind: 'User', name: 'ann' }] }],
    roleBindings: [{ metadata: { name: 'few', namespace: 'a' }, roleRef: { kind: 'Role', name: 'one' }, subjects: [{ kind: 'Group', name: 'team' }] }],
  };
  const who = (namespace: string) => whoCan(data, { verb: 'get', group: '', resource: 'pods', namespace }).map((grant) => `${grant.subject.name} ${grant.names.join()}`);
  it('finds who may, everywhere and in a namespace', () => {
    expect(who('')).toEqual(['ann ']);
    expect(who('a')).toEqual(['ann ', 'team x']);
    expect(who('b')).toEqual(['ann ']);
  });
});

describe('the map', () => {
  const meta = (name: string, more = {}) => ({ name, namespace: 'a', ...more });
  const pods = Array.from({ length: 8 }, (_, index) => ({ metadata: meta(`p${index}`, { labels: { app: 'x' }, ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'rs', uid: 'rs' }] }), spec: {}, status: {} }));
  const single = { metadata: meta('single', { labels: { app: 'y' } }), spec: { volumes: [{ name: 'v', configMap: { name: 'conf' } }] } };
  const map = layoutMap({
    ingresses: [{ metadata: meta('in'), spec: { rules: [{ http: { paths: [{ backend: { service: { name: 's' } } }] } }] } }],
    services: [{ metadata: meta('s'), spec: { selector: { app: 'x' }, ports: [{ port: 80 }] } }],
    policies: [{ metadata: meta('deny'), spec: { podSelector: {}, policyTypes: ['Ingress'] } }],
    namespaces: [],
    pods: [...pods, single],
    flows: [{ metadata: meta('single'), flows: [{ direction: 'Egress', peer: { kind: 'Pod', namespace: 'a', name: 'p1' }, connections: 3, denied: 2 }, { direction: 'Egress', peer: { kind: 'Pod', namespace: 'a', name: 'p2' }, connections: 4 }] }],
  });
  it('makes many pods of one owner one node', () => expect(map.nodes.filter((node) => node.column === 'pod').map((node) => node.detail)).toEqual(['8 pods', '']));
  it('links, and adds up what flows between the same two', () => {
    const text = map.edges.map((edge) => `${edge.kind} ${edge.from}>${edge.to} ${edge.count ?? ''}`.trim()).sort();
    expect(text).toEqual(['denied pods/a/single>owner/rs 2', 'flow pods/a/single>owner/rs 7', 'forbidden owner/rs>pods/a/single', 'forbidden pods/a/single>owner/rs', 'mount pods/a/single>configmaps/a/conf', 'policy networkpolicies/a/deny>owner/rs', 'policy networkpolicies/a/deny>pods/a/single', 'route ingresses/a/in>services/a/s', 'select services/a/s>owner/rs']);
  });
});

describe('forms and the registry', () => {
  it('write YAML that parses to what was asked', () => {
    const { objects, errors } = parseYaml(appYaml({ name: 'app', namespace: 'n', image: 'i', replicas: 2, port: 8080, expose: 'NodePort', memory: '', cpu: '', variables: [['A', 'yes']] }));
    expect(errors).toEqual([]);
    expect(objects.map((object) => object.kind)).toEqual(['Deployment', 'Service']);
    expect(objects[0]!.spec.template.spec.containers[0].env).toEqual([{ name: 'A', value: 'yes' }]);
    expect(nameProblem('Bad_Name')).toBeDefined();
  });
  it('tells components from modules', () => {
    expect(wasmKind(Uint8Array.of(0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0))).toBe('component');
    expect(wasmKind(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0))).toBe('module');
    expect(wasmKind(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46))).toBeUndefined();
  });
  it('wraps the same bytes to the same digest', async () => {
    const bytes = Uint8Array.of(0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0);
    const [first, second] = [await wrap(bytes), await wrap(bytes)];
    expect(first.digest).toBe(second.digest);
    expect(first.digest).toBe(await sha256(first.manifest));
  });
});
