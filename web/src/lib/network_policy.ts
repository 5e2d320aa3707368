// What NetworkPolicies say of traffic between pods. Pure: policies and namespaces in, verdicts out.
//
// 1. A pod is isolated in a direction as soon as one policy of its namespace selects it for that direction.
// 2. An isolated pod may have what one rule of one such policy allows; policies add up and never take away.
// 3. Traffic passes if the sender may send it and the receiver may receive it.
//
// Addresses are not looked at: a block of addresses stands for who is outside.
import type { KubeObject } from '../api/objects';
import { fromObject, matchesAll, printSelector, type LabelSelector } from './selector';

export type Direction = 'Ingress' | 'Egress';

interface Peer {
  podSelector?: LabelSelector;
  namespaceSelector?: LabelSelector;
  ipBlock?: { cidr: string; except?: string[] };
}
interface RulePort {
  protocol?: string;
  port?: number | string;
  endPort?: number;
}
interface Rule {
  peers: Peer[];
  ports: RulePort[];
}
/** Ports of one protocol, both ends included. */
export interface PortRange {
  protocol: string;
  from: number;
  to: number;
}
export interface Verdict {
  allowed: boolean;
  /** What may pass, where not everything may. */
  ports?: PortRange[];
  /** Names of the policies that decided. */
  by: string[];
}
/** A peer that is no pod in view: a block of addresses, other namespaces, or anyone. */
export interface Outsider {
  title: string;
  detail: string;
  direction: Direction;
  ports?: PortRange[];
}

const NAMES = 'network.windlass.dev/egress-names';
const LAST_PORT = 65535;

function appliesTo(policy: KubeObject, direction: Direction): boolean {
  const types = policy.spec?.policyTypes as string[] | undefined;
  // Spec: without types it is Ingress, and Egress where there are rules for it.
  if (!types?.length) return direction === 'Ingress' || !!policy.spec?.egress;
  return types.includes(direction);
}

function rulesOf(policy: KubeObject, direction: Direction): Rule[] {
  const [field, side] = direction === 'Ingress' ? ['ingress', 'from'] : ['egress', 'to'];
  return ((policy.spec?.[field] ?? []) as Record<string, unknown>[]).map((rule) => ({ peers: (rule[side] ?? []) as Peer[], ports: (rule['ports'] ?? []) as RulePort[] }));
}

/** The ports that a rule is about, as the receiver numbers those with a name; undefined: all. */
function rangesOf(ports: RulePort[], receiver: KubeObject | undefined): PortRange[] | undefined {
  if (!ports.length) return undefined;
  const declared = ((receiver?.spec?.containers ?? []) as { ports?: { name?: string; containerPort: number; protocol?: string }[] }[]).flatMap((container) => container.ports ?? []);
  return ports.flatMap(({ protocol = 'TCP', port, endPort }): PortRange[] => {
    if (port === undefined) return [{ protocol, from: 1, to: LAST_PORT }];
    if (typeof port === 'number') return [{ protocol, from: port, to: endPort ?? port }];
    return declared.filter((entry) => entry.name === port && (entry.protocol ?? 'TCP') === protocol).map((entry) => ({ protocol, from: entry.containerPort, to: entry.containerPort }));
  });
}

/** Adds up what rules allow; undefined is everything. */
function union(all: (PortRange[] | undefined)[]): PortRange[] | undefined {
  if (all.some((ranges) => !ranges)) return undefined;
  const unique = new Map(all.flatMap((ranges) => ranges!).map((range) => [`${range.protocol} ${range.from} ${range.to}`, range]));
  return [...unique.values()];
}

function intersection(one: PortRange[] | undefined, other: PortRange[] | undefined): PortRange[] | undefined {
  if (!one || !other) return one ?? other;
  return one.flatMap((left) => other.filter((right) => right.protocol === left.protocol).map((right) => ({ protocol: left.protocol, from: Math.max(left.from, right.from), to: Math.min(left.to, right.to) })).filter((range) => range.from <= range.to));
}

export function printPorts(ranges: PortRange[] | undefined): string {
  if (!ranges) return '';
  return ranges.map(({ protocol, from, to }) => `${protocol === 'TCP' ? '' : `${protocol} `}${from === to ? from : to === LAST_PORT && from === 1 ? 'all' : `${from}–${to}`}`).join(', ');
}

const selects = (selector: LabelSelector | undefined, labels: Record<string, string> | undefined) => matchesAll(labels, fromObject(selector) ?? []);

/** All policies of a cluster, or of one namespace. */
export class Policies {
  #labels: Map<string, Record<string, string>>;
  #of = new Map<string, KubeObject[]>();

  constructor(policies: readonly KubeObject[], namespaces: readonly KubeObject[]) {
    this.#labels = new Map(namespaces.map((namespace) => [namespace.metadata.name, namespace.metadata.labels ?? {}]));
    for (const policy of policies) {
      const namespace = policy.metadata.namespace ?? '';
      this.#of.set(namespace, [...(this.#of.get(namespace) ?? []), policy]);
    }
  }

  /** The policies that isolate a pod in a direction. */
  isolating(pod: KubeObject, direction: Direction): KubeObject[] {
    return (this.#of.get(pod.metadata.namespace ?? '') ?? []).filter((policy) => appliesTo(policy, direction) && selects(policy.spec?.podSelector, pod.metadata.labels));
  }

  #labelsOf(namespace: string): Record<string, string> {
    return this.#labels.get(namespace) ?? { 'kubernetes.io/metadata.name': namespace };
  }

  #isPeer(peer: Peer, policy: KubeObject, pod: KubeObject): boolean {
    if (peer.ipBlock) return false;
    const namespace = pod.metadata.namespace ?? '';
    const there = peer.namespaceSelector ? selects(peer.namespaceSelector, this.#labelsOf(namespace)) : namespace === policy.metadata.namespace;
    return there && selects(peer.podSelector, pod.metadata.labels);
  }

  #side(subject: KubeObject, direction: Direction, peer: KubeObject): Verdict | undefined {
    const policies = this.isolating(subject, direction);
    if (!policies.length) return undefined;
    const receiver = direction === 'Ingress' ? subject : peer;
    const fits = (policy: KubeObject) => rulesOf(policy, direction).filter((rule) => !rule.peers.length || rule.peers.some((entry) => this.#isPeer(entry, policy, peer))).map((rule) => rangesOf(rule.ports, receiver)).filter((ranges) => !ranges || ranges.length);
    const allowing = policies.map((policy) => ({ policy, ranges: fits(policy) })).filter((entry) => entry.ranges.length);
    const by = (allowing.length ? allowing.map((entry) => entry.policy) : policies).map((policy) => policy.metadata.name);
    return { allowed: allowing.length > 0, ports: union(allowing.flatMap((entry) => entry.ranges)), by };
  }

  /** Whether `from` may open connections to `to`; undefined where no policy has a say. */
  verdict(from: KubeObject, to: KubeObject): Verdict | undefined {
    const sides = [this.#side(from, 'Egress', to), this.#side(to, 'Ingress', from)].filter((side) => side !== undefined);
    if (!sides.length) return undefined;
    const against = sides.find((side) => !side.allowed);
    if (against) return against;
    const ports = intersection(sides[0]!.ports, sides[1]?.ports);
    const by = [...new Set(sides.flatMap((side) => side.by))];
    return { allowed: !ports || ports.length > 0, ports, by };
  }

  /** Who else than the pods in view one policy lets in or out. */
  outsiders(policy: KubeObject, view: readonly KubeObject[]): Outsider[] {
    return (['Ingress', 'Egress'] as const).filter((direction) => appliesTo(policy, direction)).flatMap((direction) => [
      ...rulesOf(policy, direction).flatMap((rule) => this.#outsidersOf(rule, policy, direction, view)),
      ...(direction === 'Egress' ? namesOf(policy) : []),
    ]);
  }

  #outsidersOf(rule: Rule, policy: KubeObject, direction: Direction, view: readonly KubeObject[]): Outsider[] {
    const ports = rangesOf(rule.ports.filter((port) => typeof port.port !== 'string'), undefined);
    if (!rule.peers.length) return [{ title: 'Anyone', detail: 'pods and addresses', direction, ports }];
    const elsewhere = (peer: Peer) => {
      if (!peer.namespaceSelector) return false;
      const others = [...this.#labels].filter(([name]) => name !== policy.metadata.namespace && selects(peer.namespaceSelector, this.#labelsOf(name)));
      const shown = new Set(view.map((pod) => pod.metadata.namespace));
      return others.some(([name]) => !shown.has(name)) || !view.some((pod) => this.#isPeer(peer, policy, pod));
    };
    return rule.peers.flatMap((peer): Outsider[] => {
      if (peer.ipBlock) return [{ title: peer.ipBlock.cidr, detail: peer.ipBlock.except?.length ? `except ${peer.ipBlock.except.join(', ')}` : 'addresses', direction, ports }];
      if (!elsewhere(peer)) return [];
      return [{ title: printSelector(peer.podSelector) || 'All pods', detail: `in namespaces ${printSelector(peer.namespaceSelector) || 'of any kind'}`, direction, ports }];
    });
  }
}

const namesOf = (policy: KubeObject): Outsider[] =>
  (policy.metadata.annotations?.[NAMES] ?? '').split(/[,\s]+/).filter(Boolean).map((title) => ({ title, detail: 'by name', direction: 'Egress' }));

/** A policy in few words: what it does to the pods it selects. */
export function describePolicy(policy: KubeObject): string {
  const words = (['Ingress', 'Egress'] as const).filter((direction) => appliesTo(policy, direction)).map((direction) => {
    const rules = rulesOf(policy, direction).length + (direction === 'Egress' && namesOf(policy).length ? 1 : 0);
    return `${direction}: ${rules ? `${rules} rule${rules === 1 ? '' : 's'}` : 'nothing'}`;
  });
  return words.join(', ');
}
