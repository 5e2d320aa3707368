// What policies add to the map: which pods each selects, who may reach whom, and who else is let in or out. Pure.
//
// Pods of one node of the map have one owner, hence the same labels: one of them speaks for all.
import { objectKey, type KubeObject } from '../api/objects';
import type { Draft, MapEdge } from './map_layout';
import { printPorts, type Outsider, type Policies } from './network_policy';
import { fromObject, matchesAll, type LabelSelector } from './selector';

/** Each pair of nodes is looked at: more of them would hold the page up, and nobody could read the drawing. */
const MOST_NODES = 300;

export interface PolicyDrawing {
  nodes: Draft[];
  edges: MapEdge[];
  leftOut: boolean;
}

const idOfOutsider = (outsider: Outsider) => `outside/${outsider.title}/${outsider.detail}`;

function outsiderNode(outsider: Outsider): Draft {
  const { title, detail } = outsider;
  return { id: idOfOutsider(outsider), column: 'outside', title, detail, group: '', resource: '', namespace: '', name: title, objects: [] };
}

function verdictEdges(policies: Policies, pods: readonly Draft[]): MapEdge[] {
  const isolated = pods.filter((node) => policies.isolating(node.objects[0]!, 'Ingress').length || policies.isolating(node.objects[0]!, 'Egress').length);
  const concerned = new Set(isolated);
  return pods.flatMap((from) => pods.flatMap((to): MapEdge[] => {
    if (from === to || (!concerned.has(from) && !concerned.has(to))) return [];
    const verdict = policies.verdict(from.objects[0]!, to.objects[0]!);
    return verdict ? [{ from: from.id, to: to.id, kind: verdict.allowed ? 'allowed' : 'forbidden', ports: verdict.allowed ? printPorts(verdict.ports) : '', by: verdict.by.join(', ') }] : [];
  }));
}

export function drawPolicies(policies: Policies, all: readonly KubeObject[], pods: readonly Draft[], idOf: ReadonlyMap<string, string>): PolicyDrawing {
  const view = pods.flatMap((node) => node.objects);
  const nodes = new Map<string, Draft>();
  const edges: MapEdge[] = [];
  for (const policy of all) {
    const selector = fromObject(policy.spec?.podSelector as LabelSelector) ?? [];
    const selected = new Set(view.filter((pod) => pod.metadata.namespace === policy.metadata.namespace && matchesAll(pod.metadata.labels, selector)).map((pod) => idOf.get(objectKey(pod))!));
    for (const to of selected) edges.push({ from: `networkpolicies/${objectKey(policy)}`, to, kind: 'policy' });
    for (const outsider of selected.size ? policies.outsiders(policy, view) : []) {
      nodes.set(idOfOutsider(outsider), outsiderNode(outsider));
      for (const pod of selected) {
        const [from, to] = outsider.direction === 'Ingress' ? [idOfOutsider(outsider), pod] : [pod, idOfOutsider(outsider)];
        edges.push({ from, to, kind: 'allowed', ports: printPorts(outsider.ports), by: policy.metadata.name });
      }
    }
  }
  const leftOut = pods.length > MOST_NODES && all.length > 0;
  return { nodes: [...nodes.values()], edges: leftOut ? edges : [...edges, ...verdictEdges(policies, pods)], leftOut };
}
