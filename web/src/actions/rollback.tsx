// The dialog that rolls a workload back: pick a revision, see what would change in the pod template, apply it.
// Deployments keep revisions as ReplicaSets, StatefulSets and DaemonSets as ControllerRevisions.
import { useState } from 'react';
import { JSON_PATCH, write } from '../api/client';
import { objectPath, type Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { useList } from '../api/use_list';
import { toYaml } from '../lib/yaml';
import { Button, Empty, ErrorNote, RelativeTime, Spinner } from '../ui/basics';
import { Dialog } from '../ui/dialog';
import { DiffView } from '../ui/diff_view';
import { useWrite } from './bar';
import type { DialogProps } from './table';

export interface Revision {
  number: number;
  created?: string;
  template: KubeObject;
  cause?: string;
}

const ANNOTATION = 'deployment.kubernetes.io/revision';

/** A template without what controllers add to each revision: a label of ReplicaSets, an instruction in ControllerRevisions. */
function clean({ $patch: _, ...template }: KubeObject): KubeObject {
  const labels = Object.fromEntries(Object.entries(template.metadata?.labels ?? {}).filter(([key]) => key !== 'pod-template-hash'));
  return { ...template, metadata: { ...template.metadata, labels, creationTimestamp: undefined } };
}

export function revisionsOf(owner: KubeObject, holders: readonly KubeObject[]): Revision[] {
  const own = holders.filter((holder) => holder.metadata.ownerReferences?.some((entry) => entry.uid === owner.metadata.uid));
  const revisions = own.map((holder): Revision => ({
    number: Number(holder.revision ?? holder.metadata.annotations?.[ANNOTATION] ?? 0),
    created: holder.metadata.creationTimestamp,
    template: clean(holder.spec?.template ?? holder.data?.spec?.template ?? {}),
    cause: holder.metadata.annotations?.['kubernetes.io/change-cause'],
  }));
  return revisions.sort((left, right) => right.number - left.number);
}

export function useRevisions(resource: Resource, object: KubeObject) {
  const kind = resource.resource === 'deployments' ? 'replicasets' : 'controllerrevisions';
  const list = useList(`/apis/apps/v1/namespaces/${object.metadata.namespace}/${kind}`);
  return { list, revisions: revisionsOf(object, list.items) };
}

const yamlOf = (template: KubeObject) => toYaml(JSON.parse(JSON.stringify(clean(template))));

async function rollBack(resource: Resource, object: KubeObject, revision: Revision): Promise<string> {
  const patch = [{ op: 'replace', path: '/spec/template', value: revision.template }];
  await write('PATCH', objectPath(resource, object.metadata.namespace, object.metadata.name), patch, JSON_PATCH);
  return `${object.metadata.name} rolls back to revision ${revision.number}.`;
}

export default function RollbackDialog({ resource, object, onClose }: DialogProps) {
  const { list, revisions } = useRevisions(resource, object);
  const [picked, setPicked] = useState<number>();
  const { error, busy, submit } = useWrite(onClose);
  const current = yamlOf(object.spec.template);
  const others = revisions.filter((revision) => yamlOf(revision.template) !== current);
  const chosen = others.find((revision) => revision.number === picked) ?? others[0];
  const reason = busy ? 'Under way' : chosen ? undefined : 'There is no other revision.';
  const footer = <><Button onClick={onClose}>Cancel</Button><Button tone="primary" reason={reason} onClick={() => chosen && void submit(() => rollBack(resource, object, chosen))}>Roll back{chosen ? ` to revision ${chosen.number}` : ''}</Button></>;
  return (
    <Dialog title={`Roll back ${object.metadata.name}`} onClose={onClose} footer={footer} size="wide">
      {list.phase === 'loading' ? <Spinner /> : !others.length ? <Empty title="There is no earlier revision that differs." /> : (
        <>
          <fieldset className="field"><legend>Revision</legend>
            {others.map((revision) => <label key={revision.number}><input type="radio" name="revision" checked={revision === chosen} onChange={() => setPicked(revision.number)} />Revision {revision.number}, made <RelativeTime time={revision.created} suffix=" ago" />{revision.cause && <span className="faint">{revision.cause}</span>}</label>)}
          </fieldset>
          {chosen && <DiffView before={current} after={yamlOf(chosen.template)} label="What changes in the pod template" />}
        </>
      )}
      {error && <ErrorNote error={error} />}
    </Dialog>
  );
}
