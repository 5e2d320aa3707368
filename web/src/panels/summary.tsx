// The summary of any object: metadata, what its kind holds, conditions, relatives, and what happened of late.
import type { Condition } from '../api/objects';
import { columnsOf } from '../kinds/columns';
import { listLink } from '../links';
import { CellText, Facts, Labels, RelativeTime, Section, Tag } from '../ui/basics';
import { PodContainers } from './containers';
import { DataPanel } from './data';
import { EventList } from './events';
import { PodsOf } from './pods_of';
import { RelativeTree } from './tree';
import { RulesPanel } from './rules';
import type { PanelProps } from './table';

/** Conditions whose `True` is good; of others `False` is. */
const GOOD = /Ready|Available|Progressing|Initialized|Scheduled|Complete|Established|NamesAccepted|Approved|Bound/;

/** Conditions that are neither good nor bad: something is under way. */
const UNDER_WAY = new Set(['PodResizeInProgress']);

function toneOf(condition: Condition): 'ok' | 'bad' | undefined {
  if (condition.status === 'Unknown' || UNDER_WAY.has(condition.type)) return undefined;
  return (condition.status === 'True') === GOOD.test(condition.type) ? 'ok' : 'bad';
}

function Conditions({ conditions }: { conditions: Condition[] }) {
  return (
    <Section title="Conditions">
      <div className="scroll-x" tabIndex={0}><table className="plain">
        <thead><tr><th>Type</th><th>Status</th><th>Reason</th><th>Message</th><th>Since</th></tr></thead>
        <tbody>{conditions.map((condition) => <tr key={condition.type}><td>{condition.type}</td><td><Tag tone={toneOf(condition)}>{condition.status}</Tag></td><td>{condition.reason}</td><td>{condition.message}</td><td><RelativeTime time={condition.lastTransitionTime} /></td></tr>)}</tbody>
      </table></div>
    </Section>
  );
}

export default function Summary({ resource, object, deleted }: PanelProps) {
  const { metadata } = object;
  const key = `${resource.group}/${resource.resource}`;
  const known = (columnsOf(resource.group, resource.resource) ?? []).filter((column) => column.id !== 'status');
  const conditions = (object.status?.conditions ?? []) as Condition[];
  const byLabel = (name: string, value: string) => listLink(resource.group, resource.resource, `?labels=${encodeURIComponent(`${name}=${value}`)}`);
  const annotations = Object.entries(metadata.annotations ?? {});
  return (
    <div className="stack">
      <Section title="Facts">
        <div className="stack">
          <Facts facts={[
            ...known.map((column): [string, React.ReactNode] => [column.title, column.render ? column.render(object) : (column.value(object) ?? '–')]),
            ['Ended because', resource.kind === 'Pod' && object.status?.reason ? `${object.status.reason}${object.status.message ? `: ${object.status.message}` : ''}` : undefined],
            ['Created', <RelativeTime key="time" time={metadata.creationTimestamp} suffix=" ago" />],
            ['UID', <code key="uid">{metadata.uid}</code>],
            ['Resource version', metadata.resourceVersion],
          ]} />
          <div><div className="faint">Labels</div><Labels labels={metadata.labels} link={byLabel} /></div>
          {annotations.length > 0 && <details><summary>{annotations.length} annotations</summary><table className="plain"><tbody>{annotations.map(([name, value]) => <tr key={name}><td><code>{name}</code></td><td><CellText text={value} /></td></tr>)}</tbody></table></details>}
        </div>
      </Section>
      {key === '/pods' && <PodContainers pod={object} />}
      {(key === '/configmaps' || key === '/secrets') && <DataPanel resource={resource} object={object} />}
      {(object.rules || object.roleRef) && resource.group === 'rbac.authorization.k8s.io' && <RulesPanel object={object} />}
      <PodsOf resource={resource} object={object} />
      {conditions.length > 0 && <Conditions conditions={conditions} />}
      <Section title="Owners and dependents"><RelativeTree resource={resource} object={object} /></Section>
      {key !== '/events' && !deleted && <Section title="Recent events"><EventList resource={resource} object={object} most={6} /></Section>}
    </div>
  );
}
