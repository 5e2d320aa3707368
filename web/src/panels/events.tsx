// The events about one object, newest first.
import { useMemo } from 'react';
import type { Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { eventCount, eventTime, newestFirst } from '../kinds/events';
import { Empty, ErrorNote, RelativeTime, Section, Tag } from '../ui/basics';
import type { PanelProps } from './table';
import { withFields } from '../lib/selector';

export function EventList({ resource, object, most = 500 }: { resource: Resource; object: KubeObject; most?: number }) {
  const { name, namespace } = object.metadata;
  const scope = namespace ? `/namespaces/${namespace}` : '';
  const list = useList(`/api/v1${scope}/events?${withFields({ 'involvedObject.name': name, 'involvedObject.kind': resource.kind })}`);
  const events = useMemo(() => [...list.items].sort(newestFirst).slice(0, most), [list.items, most]);
  if (list.error) return <ErrorNote what="Events could not be read." error={list.error} />;
  if (!events.length) return <Empty title={list.phase === 'loading' ? 'Reading events…' : 'No events. The server keeps events for about an hour.'} />;
  return (
    <div className="scroll-x" tabIndex={0}><table className="plain">
      <thead><tr><th>Type</th><th>Reason</th><th>Message</th><th>Count</th><th>Last seen</th></tr></thead>
      <tbody>{events.map((event) => <tr key={event.metadata.name}><td><Tag tone={event.type === 'Warning' ? 'warn' : undefined}>{event.type}</Tag></td><td>{event.reason}</td><td className="pre">{event.message}</td><td>{eventCount(event)}</td><td><RelativeTime time={eventTime(event)} /></td></tr>)}</tbody>
    </table></div>
  );
}

export default function EventsPanel({ resource, object }: PanelProps) {
  return <Section title="Events"><EventList resource={resource} object={object} /></Section>;
}
