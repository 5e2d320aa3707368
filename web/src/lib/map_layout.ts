// The map as a graph in columns: ingresses, services, policies, pods, volumes. Pure: lists in, placed nodes and edges out.
// Pods of one owner become one node when they are many, so that a namespace of thousands stays readable.
import { objectKey, type KubeObject } from '../api/objects';
import { drawPolicies } from './map_policies';
import { describePolicy, Policies } from './network_policy';
import { mapSelects } from './selector';

export type Column = 'outside' | 'ingress' | 'service' | 'policy' | 'pod' | 'volume';
export interface MapNode {
  id: string;
  column: Column;
  title: string;
  detail: string;
  group: string;
  /** Of the object whose page it leads to; empty for what is no object. */
  resource: string;
  namespace: string;
  name: string;
  /** Objects behind the node: several pods for a collapsed one. */
  objects: KubeObject[];
  x: number;
  y: number;
}
export interface MapEdge {
  from: string;
  to: string;
  /** `allowed` and `forbidden` are what policies say; `flow` and `denied` what was counted. */
  kind: 'route' | 'select' | 'policy' | 'mount' | 'flow' | 'denied' | 'allowed' | 'forbidden';
  /** Connections, made or refused. */
  count?: number;
  /** How many of them now, each second. */
  rate?: number;
  /** Ports that policies leave, and which policies decided. */
  ports?: string;
  by?: string;
}
export interface Flow {
  direction: string;
  peer: { kind: string; namespace?: string; name?: string; address?: string };
  protocol?: string;
  port?: number;
  connections?: number;
  denied?: number;
  /** Connections and refusals each second since the last look. */
  rate?: number;
  deniedRate?: number;
  bytesSent?: number;
  bytesReceived?: number;
}
export interface MapInput {
  ingresses: readonly KubeObject[];
  services: readonly KubeObject[];
  policies: readonly KubeObject[];
  namespaces: readonly KubeObject[];
  pods: readonly KubeObject[];
  flows: readonly KubeObject[];
}

export const NODE = { width: 200, height: 44, gap: 14, column: 262, top: 48, left: 16 };
const COLUMNS: Column[] = ['outside', 'ingress', 'service', 'policy', 'pod', 'volume'];
const COLLAPSE = 5;
const VOLUMES: [field: string, name: string, resource: string][] = [['persistentVolumeClaim', 'claimName', 'persistentvolumeclaims'], ['configMap', 'name', 'configmaps'], ['secret', 'secretName', 'secrets']];

export type Draft = Omit<MapNode, 'x' | 'y'>;

const node = (column: Column, group: string, resource: string, object: KubeObject, detail: string): Draft => ({ id: `${resource}/${objectKey(object)}`, column, title: object.metadata.name, detail, group, resource, namespace: object.metadata.namespace ?? '', name: object.metadata.name, objects: [object] });

function podNodes(pods: readonly KubeObject[]): { nodes: Draft[]; idOf: Map<string, string> } {
  const byOwner = new Map<string, KubeObject[]>();
  for (const pod of pods) {
    const owner = pod.metadata.ownerReferences?.[0]?.uid ?? objectKey(pod);
    const group = byOwner.get(owner);
    if (group) group.push(pod);
    else byOwner.set(owner, [pod]);
  }
  const idOf = new Map<string, string>();
  const nodes = [...byOwner.values()].flatMap((group) => {
    const drafts = group.length > COLLAPSE ? [collapsed(group)] : group.map((pod) => node('pod', '', 'pods', pod, pod.status?.podIP ?? ''));
    for (const draft of drafts) for (const pod of draft.objects) idOf.set(objectKey(pod), draft.id);
    return drafts;
  });
  return { nodes, idOf };
}

function collapsed(pods: KubeObject[]): Draft {
  const owner = pods[0]!.metadata.ownerReferences![0]!;
  const namespace = pods[0]!.metadata.namespace ?? '';
  const resource = `${owner.kind.toLowerCase()}s`;
  return { id: `owner/${owner.uid}`, column: 'pod', title: owner.name, detail: `${pods.length} pods`, group: resource === 'jobs' ? 'batch' : 'apps', resource, namespace, name: owner.name, objects: pods };
}

function volumes(pods: readonly KubeObject[], idOf: Map<string, string>): { nodes: Draft[]; edges: MapEdge[] } {
  const nodes = new Map<string, Draft>();
  const edges: MapEdge[] = [];
  for (const pod of pods) {
    for (const volume of (pod.spec?.volumes ?? []) as Record<string, Record<string, string>>[]) {
      for (const [field, key, resource] of VOLUMES) {
        const name = volume[field]?.[key];
        if (!name) continue;
        const object = { metadata: { name, namespace: pod.metadata.namespace } };
        const draft = node('volume', '', resource, object, field);
        nodes.set(draft.id, draft);
        edges.push({ from: idOf.get(objectKey(pod))!, to: draft.id, kind: 'mount' });
      }
    }
  }
  return { nodes: [...nodes.values()], edges };
}

const backends = (ingress: KubeObject): string[] => {
  const rules = (ingress.spec?.rules ?? []) as { http?: { paths?: { backend?: { service?: { name: string } } }[] } }[];
  return [ingress.spec?.defaultBackend?.service?.name, ...rules.flatMap((rule) => rule.http?.paths?.map((path) => path.backend?.service?.name) ?? [])].filter((name): name is string => !!name);
};

function flowEdges(flows: readonly KubeObject[], idOf: Map<string, string>): MapEdge[] {
  const edges: MapEdge[] = [];
  for (const entry of flows) {
    const self = idOf.get(objectKey(entry));
    for (const flow of (entry.flows ?? []) as Flow[]) {
      const { kind, namespace, name } = flow.peer;
      const peer = kind === 'Pod' ? idOf.get(`${namespace}/${name}`) : kind === 'Service' ? `services/${namespace}/${name}` : undefined;
      if (!self || !peer) continue;
      const [from, to] = flow.direction === 'Egress' ? [self, peer] : [peer, self];
      if (flow.connections) edges.push({ from, to, kind: 'flow', count: flow.connections, rate: flow.rate ?? 0 });
      if (flow.denied) edges.push({ from, to, kind: 'denied', count: flow.denied, rate: flow.deniedRate ?? 0 });
    }
  }
  return edges;
}

/** One edge for each pair and kind; counts are added up. */
function merge(edges: MapEdge[]): MapEdge[] {
  const merged = new Map<string, MapEdge>();
  for (const edge of edges) {
    const key = `${edge.from} ${edge.to} ${edge.kind}`;
    const known = merged.get(key);
    if (!known) merged.set(key, { ...edge });
    else if (edge.count !== undefined) Object.assign(known, { count: (known.count ?? 0) + edge.count, rate: (known.rate ?? 0) + (edge.rate ?? 0) });
  }
  return [...merged.values()];
}

export interface MapLayout {
  nodes: MapNode[];
  edges: MapEdge[];
  width: number;
  height: number;
  /** Pods were too many to tell who may reach whom. */
  policiesLeftOut: boolean;
}

export function layoutMap(input: MapInput): MapLayout {
  const { nodes: pods, idOf } = podNodes(input.pods);
  const mounted = volumes(input.pods, idOf);
  const policies = drawPolicies(new Policies(input.policies, input.namespaces), input.policies, pods, idOf);
  const drafts = [
    ...policies.nodes,
    ...input.ingresses.map((object) => node('ingress', 'networking.k8s.io', 'ingresses', object, ((object.spec?.rules ?? []) as { host?: string }[]).map((rule) => rule.host ?? '*').join(', '))),
    ...input.services.map((object) => node('service', '', 'services', object, `${object.spec?.type ?? 'ClusterIP'} ${((object.spec?.ports ?? []) as { port: number }[]).map((port) => port.port).join(', ')}`)),
    ...input.policies.map((object) => node('policy', 'networking.k8s.io', 'networkpolicies', object, describePolicy(object))),
    ...pods,
    ...mounted.nodes,
  ];
  const sameNamespace = (one: KubeObject, other: KubeObject) => one.metadata.namespace === other.metadata.namespace;
  const selected = (from: string, owner: KubeObject, kind: MapEdge['kind'], selects: (pod: KubeObject) => boolean): MapEdge[] =>
    input.pods.filter((pod) => sameNamespace(pod, owner) && selects(pod)).map((pod) => ({ from, to: idOf.get(objectKey(pod))!, kind }));
  const edges = [
    ...input.ingresses.flatMap((ingress) => backends(ingress).map((name): MapEdge => ({ from: `ingresses/${objectKey(ingress)}`, to: `services/${ingress.metadata.namespace}/${name}`, kind: 'route' }))),
    ...input.services.flatMap((service) => selected(`services/${objectKey(service)}`, service, 'select', (pod) => mapSelects(service.spec?.selector, pod.metadata.labels))),
    ...policies.edges,
    ...mounted.edges,
    ...flowEdges(input.flows, idOf),
  ];
  return { ...place(drafts, merge(edges)), policiesLeftOut: policies.leftOut };
}

function place(drafts: Draft[], edges: MapEdge[]) {
  const nodes: MapNode[] = [];
  const used = COLUMNS.filter((column) => drafts.some((draft) => draft.column === column));
  let height = 0;
  for (const [index, column] of used.entries()) {
    const own = drafts.filter((draft) => draft.column === column);
    // Near what it is linked to: the mean row of the neighbours already placed.
    const wish = (draft: Draft) => {
      const rows = edges.flatMap((edge) => (edge.to === draft.id ? nodes.filter((placed) => placed.id === edge.from).map((placed) => placed.y) : []));
      return rows.length ? rows.reduce((sum, row) => sum + row, 0) / rows.length : Infinity;
    };
    const order = own.map((draft) => ({ draft, wish: wish(draft) })).sort((left, right) => left.draft.namespace.localeCompare(right.draft.namespace) || left.wish - right.wish || left.draft.name.localeCompare(right.draft.name));
    order.forEach(({ draft }, row) => nodes.push({ ...draft, x: NODE.left + index * NODE.column, y: NODE.top + row * (NODE.height + NODE.gap) }));
    height = Math.max(height, NODE.top + own.length * (NODE.height + NODE.gap));
  }
  const known = new Set(nodes.map((placed) => placed.id));
  return { nodes, edges: edges.filter((edge) => known.has(edge.from) && known.has(edge.to)), width: NODE.left * 2 + Math.max(1, used.length) * NODE.column - (NODE.column - NODE.width), height: height + NODE.gap };
}
