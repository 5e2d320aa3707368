// YAML typed, pasted or dropped: checked by a server-side dry run, then applied.
import { useState, type DragEvent } from 'react';
import { apiVersionOf, findResource, useCatalogue } from '../api/discovery';
import { explain } from '../api/client';
import { linkOf } from '../links';
import { parseYaml } from '../lib/yaml';
import { useSchemaHelp } from '../panels/yaml';
import { Button, Link, Note, Section, Tag } from '../ui/basics';
import { DiffView } from '../ui/diff_view';
import { Editor } from '../ui/editor';
import { applyAll, type Outcome } from './apply';

const TONES = { created: 'ok', changed: 'warn', unchanged: undefined, failed: 'bad' } as const;

function OutcomeRow({ outcome, dryRun }: { outcome: Outcome; dryRun: boolean }) {
  const { object, resource, result, error, warnings } = outcome;
  const { name, namespace } = object.metadata;
  const done = !dryRun && result !== 'failed' && resource && name;
  return (
    <li className="card stack">
      <div className="inline"><Tag tone={TONES[result]}>{dryRun && result !== 'failed' && result !== 'unchanged' ? `would be ${result}` : result}</Tag><strong>{object.kind}</strong>{done ? <Link to={linkOf(resource.group, resource.resource, object)}>{name}</Link> : <span>{name}</span>}{namespace && <span className="faint">in {namespace}</span>}</div>
      {error && <p className="pre">{explain(error)}</p>}
      {warnings.map((warning) => <Note key={warning} tone="warn">{warning}</Note>)}
      {result === 'changed' && <DiffView before={outcome.before ?? ''} after={outcome.after ?? ''} />}
    </li>
  );
}

interface Props {
  namespace: string;
  text: string;
  onText(text: string): void;
  /** `group/resource` to begin with. */
  kind?: string;
}

export function CreateYaml({ namespace, text, onText, kind }: Props) {
  const { all } = useCatalogue();
  const [outcomes, setOutcomes] = useState<Outcome[]>([]);
  const [phase, setPhase] = useState<'edit' | 'checking' | 'checked' | 'applying' | 'applied'>('edit');
  const [force, setForce] = useState(false);
  const [over, setOver] = useState(false);
  const [group, resourceName] = (kind ?? '').split('/');
  const resource = kind ? findResource(all, group!, resourceName!) : undefined;
  const start = resource && !text ? `apiVersion: ${apiVersionOf(resource)}\nkind: ${resource.kind}\nmetadata:\n  name: \n` : text;
  const parsed = parseYaml(start);
  const first = parsed.objects[0];
  const help = useSchemaHelp(first?.apiVersion ?? 'v1', first?.kind ?? 'Pod');
  const change = (next: string) => {
    onText(next);
    setOutcomes([]);
    setPhase('edit');
  };
  const run = async (dryRun: boolean) => {
    setPhase(dryRun ? 'checking' : 'applying');
    await applyAll(parsed.objects, all, namespace, dryRun, force, setOutcomes);
    setPhase(dryRun ? 'checked' : 'applied');
  };
  const drop = async (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const texts = await Promise.all([...event.dataTransfer.files].map((file) => file.text()));
    if (texts.length) change(texts.join('\n---\n'));
  };
  const problem = parsed.errors[0];
  const busy = phase === 'checking' || phase === 'applying';
  const reason = problem ? `Line ${problem.line}: ${problem.message}` : !parsed.objects.length ? 'There is no object yet.' : busy ? 'Under way' : undefined;
  const failed = outcomes.some((outcome) => outcome.result === 'failed');
  const conflicts = outcomes.some((outcome) => outcome.error?.message.includes('conflict'));
  return (
    <div className="stack" onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)} onDrop={(event) => void drop(event)}>
      <Section title={`${parsed.objects.length} object${parsed.objects.length === 1 ? '' : 's'}`} actions={<><label className="button">Open files<input className="sr-only" type="file" accept=".yaml,.yml,.json" multiple aria-label="Open YAML files" onChange={(event) => void Promise.all([...(event.target.files ?? [])].map((file) => file.text())).then((texts) => texts.length && change(texts.join('\n---\n')))} /></label><Button reason={reason} onClick={() => void run(true)}>Check</Button><Button tone="primary" reason={reason ?? (phase === 'checked' && !failed ? undefined : phase === 'applied' ? 'It is applied.' : 'Check it first.')} onClick={() => void run(false)}>Apply</Button></>}>
        <div className={over ? 'drop drop-over' : ''}><Editor label="YAML to apply" value={start} onChange={change} help={help} /></div>
        <p className="faint">Paste or drop files here; several documents are parted by ---. It is applied by server-side apply.</p>
        {problem && start.trim() && <Note tone="bad">Line {problem.line}: {problem.message}</Note>}
        {conflicts && <label><input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} />Take over fields that others manage (force)</label>}
      </Section>
      {outcomes.length > 0 && <Section title={phase === 'applied' ? 'What was done' : 'What would be done'}><ul className="stack">{outcomes.map((outcome, index) => <OutcomeRow key={index} outcome={outcome} dryRun={phase !== 'applied' && phase !== 'applying'} />)}</ul></Section>}
    </div>
  );
}
