// Who may do something, worked out from roles and bindings: the reverse of what the API answers.
import type { KubeObject } from '../api/objects';
import type { Rule } from '../api/rights';

export interface Subject {
  kind: string;
  name: string;
  namespace?: string;
}
export interface Grant {
  subject: Subject;
  /** The binding and role it comes from. */
  binding: KubeObject;
  bindingKind: 'RoleBinding' | 'ClusterRoleBinding';
  role: string;
  /** Limited to these names; empty for all. */
  names: string[];
}
export interface RbacData {
  roles: readonly KubeObject[];
  clusterRoles: readonly KubeObject[];
  roleBindings: readonly KubeObject[];
  clusterRoleBindings: readonly KubeObject[];
}
export interface Wanted {
  verb: string;
  group: string;
  resource: string;
  /** Empty: in all namespaces, which only cluster-wide bindings give. */
  namespace: string;
}

const has = (list: string[] | undefined, value: string) => !!list?.some((entry) => entry === '*' || entry === value);

/** The rules of a role that match, as the names each is limited to; undefined when none does. */
function matching(rules: Rule[], { verb, group, resource }: Wanted): string[] | undefined {
  const found = rules.filter((rule) => has(rule.verbs, verb) && has(rule.apiGroups, group) && has(rule.resources, resource));
  if (!found.length) return undefined;
  return found.some((rule) => !rule.resourceNames?.length) ? [] : found.flatMap((rule) => rule.resourceNames ?? []);
}

export function rulesOf(data: RbacData, binding: KubeObject): Rule[] {
  const { kind, name } = binding.roleRef as { kind: string; name: string };
  const role = kind === 'ClusterRole'
    ? data.clusterRoles.find((entry) => entry.metadata.name === name)
    : data.roles.find((entry) => entry.metadata.name === name && entry.metadata.namespace === binding.metadata.namespace);
  return (role?.rules ?? []) as Rule[];
}

export function whoCan(data: RbacData, wanted: Wanted): Grant[] {
  const local = data.roleBindings.filter((binding) => wanted.namespace && binding.metadata.namespace === wanted.namespace);
  const all = [...data.clusterRoleBindings.map((binding) => ['ClusterRoleBinding', binding] as const), ...local.map((binding) => ['RoleBinding', binding] as const)];
  return all.flatMap(([bindingKind, binding]) => {
    const names = matching(rulesOf(data, binding), wanted);
    if (!names) return [];
    const role = `${binding.roleRef.kind} ${binding.roleRef.name}`;
    return ((binding.subjects ?? []) as Subject[]).map((subject): Grant => ({ subject, binding, bindingKind, role, names }));
  });
}

export const subjectText = (subject: Subject) => `${subject.kind} ${subject.kind === 'ServiceAccount' ? `${subject.namespace}/` : ''}${subject.name}`;

/** Everything that one subject was given, binding by binding. */
export function givenTo(data: RbacData, text: string): { binding: KubeObject; rules: Rule[]; where: string }[] {
  const has = (binding: KubeObject) => ((binding.subjects ?? []) as Subject[]).some((subject) => subjectText(subject) === text);
  return [...data.clusterRoleBindings, ...data.roleBindings].filter(has).map((binding) => ({ binding, rules: rulesOf(data, binding), where: binding.metadata.namespace ?? 'all namespaces' }));
}
