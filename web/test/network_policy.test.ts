// What NetworkPolicies say, what the map draws of it, and traffic per second.
import { describe, expect, it } from 'vitest';
import { withRates } from '../src/api/metrics';
import type { KubeObject } from '../src/api/objects';
import { layoutMap } from '../src/lib/map_layout';
import { describePolicy, Policies, printPorts } from '../src/lib/network_policy';

const pod = (namespace: string, app: string): KubeObject => ({ metadata: { name: app, namespace, labels: { app } }, spec: { containers: [{ ports: [{ name: 'http', containerPort: 8080 }] }] } });
const policy = (name: string, spec: object, annotations?: Record<string, string>): KubeObject => ({ metadata: { name, namespace: 'a', annotations }, spec });
const from = (app: string) => ({ podSelector: { matchLabels: { app } } });
const NAMESPACES: KubeObject[] = [{ metadata: { name: 'a' } }, { metadata: { name: 'b', labels: { team: 'blue' } } }];
const [web, db, other, blue] = [pod('a', 'web'), pod('a', 'db'), pod('a', 'other'), pod('b', 'web')];
const DB = { podSelector: { matchLabels: { app: 'db' } } };

function verdict(policies: KubeObject[], sender: KubeObject, receiver: KubeObject): string {
  const found = new Policies(policies, NAMESPACES).verdict(sender, receiver);
  return found ? `${found.allowed ? 'yes' : 'no'} ${found.by.join('+')} ${printPorts(found.ports)}`.trim() : 'free';
}

describe('policies', () => {
  const toWeb = policy('db', { ...DB, ingress: [{ from: [from('web')], ports: [{ port: 'http' }, { protocol: 'UDP', port: 53, endPort: 54 }] }] });
  const cases: [what: string, policies: KubeObject[], sender: KubeObject, receiver: KubeObject, expected: string][] = [
    ['nobody is selected', [toWeb], web!, other!, 'free'],
    ['a rule lets the peer in, at ports by name and range', [toWeb], web!, db!, 'yes db 8080, UDP 53–54'],
    ['no rule fits', [toWeb], other!, db!, 'no db'],
    ['a pod selector alone is of the policy’s namespace', [toWeb], blue!, db!, 'no db'],
    ['no rules at all', [policy('deny', { podSelector: {}, policyTypes: ['Ingress'] })], web!, db!, 'no deny'],
    ['a rule without peers is for all', [policy('open', { podSelector: {}, ingress: [{}] })], blue!, db!, 'yes open'],
    ['policies add up', [policy('deny', { podSelector: {} }), toWeb], web!, db!, 'yes db 8080, UDP 53–54'],
    ['namespaces by label', [policy('blue', { ...DB, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'blue' } } }] }] })], blue!, db!, 'yes blue'],
    ['both selectors of a peer', [policy('blue', { ...DB, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'blue' } }, ...from('db') }] }] })], blue!, db!, 'no blue'],
    ['types left out: no egress without rules for it', [policy('deny', { podSelector: {} })], db!, blue!, 'free'],
    ['the sender may not', [policy('out', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Egress'] })], web!, db!, 'no out'],
    ['both ends have a say on ports', [toWeb, policy('out', { podSelector: { matchLabels: { app: 'web' } }, egress: [{ ports: [{ port: 8000, endPort: 9000 }] }] })], web!, db!, 'yes out+db 8080'],
    ['and may leave none', [toWeb, policy('out', { podSelector: { matchLabels: { app: 'web' } }, egress: [{ ports: [{ port: 443 }] }] })], web!, db!, 'no out+db'],
    ['a port name that the pod has not', [policy('odd', { ...DB, ingress: [{ ports: [{ port: 'grpc' }] }] })], web!, db!, 'no odd'],
    ['blocks are for addresses', [policy('block', { ...DB, ingress: [{ from: [{ ipBlock: { cidr: '0.0.0.0/0' } }] }] })], web!, db!, 'no block'],
  ];
  it.each(cases)('%s', (_what, policies, sender, receiver, expected) => expect(verdict(policies, sender, receiver)).toBe(expected));

  it('are told in few words', () => {
    expect(describePolicy(toWeb)).toBe('Ingress: 1 rule');
    expect(describePolicy(policy('x', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] }, { 'network.windlass.dev/egress-names': '*.example.org' }))).toBe('Ingress: nothing, Egress: 1 rule');
  });
});

describe('policies on the map', () => {
  const rules = { ingress: [{ from: [from('web'), { ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } }, { namespaceSelector: { matchLabels: { team: 'blue' } } }] }], egress: [{ ports: [{ port: 443 }] }] };
  const map = layoutMap({ ingresses: [], services: [], policies: [policy('db', { ...DB, ...rules }, { 'network.windlass.dev/egress-names': 'api.example.org' })], namespaces: NAMESPACES, pods: [web!, db!, other!], flows: [] });
  it('draw who may and who may not', () => {
    const edges = map.edges.filter((edge) => edge.kind !== 'policy').map((edge) => `${edge.kind} ${edge.from} > ${edge.to} ${edge.ports}`.trim()).sort();
    expect(edges).toEqual([
      'allowed outside/10.0.0.0/8/except 10.1.0.0/16 > pods/a/db',
      'allowed outside/All pods/in namespaces team=blue > pods/a/db',
      'allowed pods/a/db > outside/Anyone/pods and addresses 443',
      'allowed pods/a/db > outside/api.example.org/by name',
      'allowed pods/a/db > pods/a/other 443',
      'allowed pods/a/db > pods/a/web 443',
      'allowed pods/a/web > pods/a/db',
      'forbidden pods/a/other > pods/a/db',
    ]);
  });
  it('stand in a column of their own, before all others', () => expect(map.nodes.filter((node) => node.column === 'outside').map((node) => [node.title, node.x])).toEqual([['10.0.0.0/8', 16], ['All pods', 16], ['Anyone', 16], ['api.example.org', 16]]));
  it('are left out among too many pods', () => {
    const many = Array.from({ length: 301 }, (_, index) => pod('a', `p${index}`));
    expect(layoutMap({ ingresses: [], services: [], policies: [policy('all', { podSelector: {} })], namespaces: [], pods: many, flows: [] }).policiesLeftOut).toBe(true);
  });
});

describe('traffic', () => {
  it('is told per second once it was seen twice, and never below zero', () => {
    const seen = (connections: number) => [{ metadata: { name: 'p', namespace: 'a' }, flows: [{ direction: 'Egress', peer: { kind: 'Pod', namespace: 'a', name: 'q' }, port: 80, connections, denied: 0 }] }];
    const first = withRates(seen(10), undefined, 0);
    expect(first.pods[0]!.flows[0].rate).toBe(0);
    const second = withRates(seen(30), first.seen, 5);
    expect(second.pods[0]!.flows[0].rate).toBe(4);
    expect(withRates(seen(1), second.seen, 5).pods[0]!.flows[0].rate).toBe(0);
  });
});
