// The revisions of a workload and what each changed.
import { useState } from 'react';
import { useRevisions } from '../actions/rollback';
import { shortImage } from '../kinds/columns';
import { toYaml } from '../lib/yaml';
import { Empty, ErrorNote, RelativeTime, Section, Tag } from '../ui/basics';
import { DiffView } from '../ui/diff_view';
import type { PanelProps } from './table';

const yamlOf = (template: unknown) => toYaml(JSON.parse(JSON.stringify(template)));

export default function RevisionsPanel({ resource, object }: PanelProps) {
  const { list, revisions } = useRevisions(resource, object);
  const [picked, setPicked] = useState<number>();
  if (list.error) return <ErrorNote error={list.error} />;
  if (!revisions.length) return <Empty title={list.phase === 'loading' ? 'Reading revisions…' : 'No revisions are kept.'} />;
  const index = Math.max(0, revisions.findIndex((revision) => revision.number === picked));
  const [shown, before] = [revisions[index]!, revisions[index + 1]];
  return (
    <div className="stack">
      <Section title="Revisions">
        <div className="scroll-x" tabIndex={0}><table className="plain">
          <thead><tr><th>Revision</th><th>Images</th><th>Made</th><th>Cause</th></tr></thead>
          <tbody>{revisions.map((revision, at) => <tr key={revision.number}><td><label><input type="radio" name="revision" checked={at === index} onChange={() => setPicked(revision.number)} />{revision.number}</label> {at === 0 && <Tag>newest</Tag>}</td><td>{((revision.template.spec?.containers ?? []) as { image: string }[]).map((container) => shortImage(container.image)).join(', ')}</td><td><RelativeTime time={revision.created} suffix=" ago" /></td><td>{revision.cause}</td></tr>)}</tbody>
        </table></div>
      </Section>
      <Section title={before ? `What revision ${shown.number} changed since ${before.number}` : `Revision ${shown.number}, the oldest kept`}>
        {before ? <DiffView before={yamlOf(before.template)} after={yamlOf(shown.template)} /> : <pre className="code-block" tabIndex={0}>{yamlOf(shown.template)}</pre>}
      </Section>
    </div>
  );
}
