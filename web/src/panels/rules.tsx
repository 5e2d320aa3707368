// What a role allows and whom a binding gives it to.
import type { KubeObject } from '../api/objects';
import type { Rule } from '../api/rights';
import { kindLink } from '../links';
import { Facts, Link, Section } from '../ui/basics';

const list = (values: string[] | undefined, empty: string) => (values?.length ? values.map((value) => (value === '' ? 'core' : value === '*' ? 'all' : value)).join(', ') : empty);

export function RuleTable({ rules }: { rules: Rule[] }) {
  return (
    <div className="scroll-x" tabIndex={0}><table className="plain">
      <thead><tr><th>Verbs</th><th>Groups</th><th>Resources</th><th>Names</th></tr></thead>
      <tbody>{rules.map((rule, index) => <tr key={index}><td>{list(rule.verbs, '')}</td><td>{rule.nonResourceURLs ? '' : list(rule.apiGroups, '')}</td><td>{rule.nonResourceURLs ? rule.nonResourceURLs.join(', ') : list(rule.resources, '')}</td><td>{list(rule.resourceNames, 'any')}</td></tr>)}</tbody>
    </table></div>
  );
}

interface Subject {
  kind: string;
  name: string;
  namespace?: string;
}

export function RulesPanel({ object }: { object: KubeObject }) {
  if (object.rules) return <Section title="What it allows"><RuleTable rules={object.rules as Rule[]} /></Section>;
  const { kind, name } = object.roleRef as { kind: string; name: string };
  const to = kindLink('rbac.authorization.k8s.io/v1', kind, object.metadata.namespace, name);
  const subjects = (object.subjects ?? []) as Subject[];
  return (
    <Section title="Binding">
      <Facts facts={[['Gives', to ? <Link key="role" to={to}>{kind} {name}</Link> : `${kind} ${name}`], ['To', <ul key="subjects">{subjects.map((subject) => {
        const page = subject.kind === 'ServiceAccount' ? kindLink('v1', 'ServiceAccount', subject.namespace, subject.name) : undefined;
        const text = `${subject.kind} ${subject.namespace ? `${subject.namespace}/` : ''}${subject.name}`;
        return <li key={text}>{page ? <Link to={page}>{text}</Link> : text}</li>;
      })}</ul>]]} />
    </Section>
  );
}
