// Access: what you may do, who may do a thing, and what a subject was given.
import { useMemo } from 'react';
import { useCatalogue } from '../api/discovery';
import { rulesIn } from '../api/rights';
import { useSession } from '../api/session';
import { useList } from '../api/use_list';
import { kindLink } from '../links';
import { givenTo, subjectText, whoCan, type RbacData, type Subject } from '../lib/rbac';
import { useNamespace } from '../namespace';
import { setQuery, useLocation } from '../router';
import { RuleTable } from '../panels/rules';
import { Empty, ErrorNote, Facts, Link, Section, Spinner, Tag } from '../ui/basics';
import { Tabs } from '../ui/tabs';
import { useRemote } from '../ui/use_remote';

const RBAC = 'rbac.authorization.k8s.io/v1';
const VERBS = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection', 'impersonate', 'escalate', 'bind'];

function Yours() {
  const state = useSession();
  const namespace = useNamespace() || 'default';
  const rules = useRemote(namespace, () => rulesIn(namespace));
  if (state.phase !== 'signedIn') return null;
  const { user } = state.session;
  return (
    <div className="stack">
      <Section title="You"><Facts facts={[['User', user.username], ['Groups', user.groups.join(', ')]]} /></Section>
      <Section title={`What you may do in namespace ${namespace}`}>
        {rules.error ? <ErrorNote error={rules.error} /> : !rules.value ? <Spinner /> : <>{rules.value.incomplete && <p className="faint">The server says that this list may not be complete.</p>}<RuleTable rules={rules.value.rules} /></>}
      </Section>
    </div>
  );
}

function useRbac() {
  const lists = [useList(`/apis/${RBAC}/roles`), useList(`/apis/${RBAC}/clusterroles`), useList(`/apis/${RBAC}/rolebindings`), useList(`/apis/${RBAC}/clusterrolebindings`)];
  const [a, b, c, d] = lists.map((list) => list.items);
  const data = useMemo((): RbacData => ({ roles: a!, clusterRoles: b!, roleBindings: c!, clusterRoleBindings: d! }), [a, b, c, d]);
  return { data, error: lists.find((list) => list.error)?.error, loading: lists.some((list) => list.phase === 'loading') };
}

function SubjectName({ subject }: { subject: Subject }) {
  const text = subjectText(subject);
  return <Link to={`/access?view=subject&subject=${encodeURIComponent(text)}`}>{text}</Link>;
}

function WhoCan({ data }: { data: RbacData }) {
  const { all } = useCatalogue();
  const { query } = useLocation();
  const namespace = useNamespace();
  const verb = query.get('verb') ?? 'get';
  const what = query.get('what') ?? '/secrets';
  const [group, resource] = what.split('/') as [string, string];
  const grants = useMemo(() => whoCan(data, { verb, group, resource, namespace }), [data, verb, group, resource, namespace]);
  const targets = all.flatMap((entry) => [entry.resource, ...entry.subresources.map((sub) => `${entry.resource}/${sub}`)].map((name) => ({ value: `${entry.group}/${name}`, title: `${name}${entry.group ? ` (${entry.group})` : ''}` })));
  return (
    <Section title="Who may" actions={<>
      <select aria-label="Verb" value={verb} onChange={(event) => setQuery({ verb: event.target.value })}>{VERBS.map((entry) => <option key={entry}>{entry}</option>)}</select>
      <select aria-label="Resource" value={what} onChange={(event) => setQuery({ what: event.target.value })}>{targets.map((target) => <option key={target.value} value={target.value}>{target.title}</option>)}</select>
      <span>{namespace ? `in namespace ${namespace}` : 'in all namespaces'}</span></>}>
      {grants.length ? (
        <div className="scroll-x" tabIndex={0}><table className="plain"><thead><tr><th>Who</th><th>By</th><th>Role</th><th>Only</th></tr></thead>
          <tbody>{grants.map((grant, index) => <tr key={index}><td><SubjectName subject={grant.subject} /></td><td><Link to={kindLink(RBAC, grant.bindingKind, grant.binding.metadata.namespace, grant.binding.metadata.name) ?? '#'}>{grant.bindingKind} {grant.binding.metadata.name}</Link></td><td>{grant.role}</td><td>{grant.names.join(', ')}</td></tr>)}</tbody></table></div>
      ) : <Empty title="Nobody by a role." />}
      <p className="faint">Worked out from roles and bindings. Members of system:masters may do everything; other authorizers are not seen here.</p>
    </Section>
  );
}

function SubjectView({ data }: { data: RbacData }) {
  const { query } = useLocation();
  const subjects = useMemo(() => [...new Set([...data.clusterRoleBindings, ...data.roleBindings].flatMap((binding) => ((binding.subjects ?? []) as Subject[]).map(subjectText)))].sort(), [data]);
  const chosen = query.get('subject') ?? subjects[0] ?? '';
  const given = useMemo(() => givenTo(data, chosen), [data, chosen]);
  return (
    <Section title="What a subject was given" actions={<select aria-label="Subject" value={chosen} onChange={(event) => setQuery({ subject: event.target.value })}>{[...new Set([chosen, ...subjects])].map((text) => <option key={text}>{text}</option>)}</select>}>
      {given.length ? given.map(({ binding, rules, where }) => <div key={`${where}/${binding.metadata.name}`} className="stack"><h3>{binding.roleRef.kind} {binding.roleRef.name} <Tag>{where}</Tag> <span className="faint">by {binding.metadata.name}</span></h3><RuleTable rules={rules} /></div>) : <Empty title="Nothing by a binding." />}
    </Section>
  );
}

const VIEWS = [['yours', 'Yours'], ['who', 'Who may'], ['subject', 'By subject']] as const;

export default function AccessPage() {
  const { query } = useLocation();
  const view = query.get('view') ?? 'yours';
  const { data, error, loading } = useRbac();
  return (
    <div className="page">
      <div className="page-head"><h1>Access</h1></div>
      <Tabs label="Views" current={view} tabs={VIEWS.map(([id, title]) => ({ id, title, to: `/access?view=${id}` }))} />
      {view === 'yours' ? <Yours /> : error ? <ErrorNote what="Roles and bindings can’t all be read, so this can’t be worked out." error={error} /> : loading ? <Spinner /> : view === 'who' ? <WhoCan data={data} /> : <SubjectView data={data} />}
    </div>
  );
}
