// View and edit an object as YAML.
//
//   edit ──> review: the newest object is read; if others changed it meanwhile, both sets of changes are merged;
//            then a server-side dry run, and the difference that it would make is shown
//        ──> apply: PUT with the resourceVersion that was reviewed; a conflict leads back to review
import { useEffect, useMemo, useState } from 'react';
import { ApiError, FIELD_MANAGER, getObject, write } from '../api/client';
import { apiVersionOf, objectPath } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { useAccess } from '../api/rights';
import { kindSchema, type KindSchema } from '../api/schema';
import { merge3 } from '../lib/diff';
import { download } from '../lib/download';
import { editable, parseYaml, toYaml } from '../lib/yaml';
import { setLeaveGuard } from '../router';
import { Button, ErrorNote, Note, Section } from '../ui/basics';
import { Dialog } from '../ui/dialog';
import { DiffView } from '../ui/diff_view';
import { Editor } from '../ui/editor';
import { toast } from '../ui/toasts';
import { useRemote } from '../ui/use_remote';
import type { PanelProps } from './table';

interface Review {
  before: string;
  after: string;
  warnings: string[];
  body: KubeObject;
}
interface Conflict {
  base: string;
  mine: string;
  theirs: string;
  merged: string;
  conflicts: number;
}

export function useSchemaHelp(apiVersion: string, kind: string) {
  const schema = useRemote<KindSchema>(`${apiVersion} ${kind}`, () => kindSchema(apiVersion, kind));
  return useMemo(() => ({ describe: (path: string[]) => schema.value?.describe(path), complete: (path: string[]) => schema.value?.complete(path) ?? [] }), [schema.value]);
}

function parseOne(text: string): KubeObject {
  const { objects, errors } = parseYaml(text);
  if (errors[0]) throw new Error(`Line ${errors[0].line}: ${errors[0].message}`);
  if (objects.length !== 1) throw new Error(`There must be one object here; there are ${objects.length}.`);
  return objects[0]!;
}

function ConflictDialog({ conflict, onTake, onClose }: { conflict: Conflict; onTake(text: string): void; onClose(): void }) {
  const footer = <><Button onClick={onClose}>Keep editing mine</Button><Button onClick={() => onTake(conflict.theirs)}>Drop mine, take theirs</Button><Button tone="primary" onClick={() => onTake(conflict.merged)}>{conflict.conflicts ? 'Edit the merged text' : 'Use the merged text'}</Button></>;
  return (
    <Dialog title="It was changed while you edited" onClose={onClose} footer={footer} size="wide">
      <Note tone={conflict.conflicts ? 'bad' : 'warn'}>{conflict.conflicts ? `Both changed the same lines in ${conflict.conflicts} places. The merged text marks them; choose there.` : 'Both sets of changes fit together.'}</Note>
      <h3>Changed on the server</h3><DiffView before={conflict.base} after={conflict.theirs} label="Changed on the server" />
      <h3>Changed by you</h3><DiffView before={conflict.base} after={conflict.mine} label="Changed by you" />
      <h3>Merged, against the server’s</h3><DiffView before={conflict.theirs} after={conflict.merged} label="Merged" />
    </Dialog>
  );
}

export default function YamlPanel({ resource, object, deleted }: PanelProps) {
  const apiVersion = apiVersionOf(resource);
  const full = { ...object, apiVersion: object.apiVersion ?? apiVersion, kind: object.kind ?? resource.kind };
  const keepStatus = !resource.subresources.includes('status');
  const textOf = (from: KubeObject) => toYaml(editable({ ...from, apiVersion: from.apiVersion ?? apiVersion, kind: from.kind ?? resource.kind }, keepStatus));
  const [draft, setDraft] = useState<{ base: string; text: string }>();
  const [review, setReview] = useState<Review>();
  const [conflict, setConflict] = useState<Conflict>();
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const help = useSchemaHelp(full.apiVersion, full.kind);
  const access = useAccess({ verb: 'update', group: resource.group, resource: resource.resource, namespace: object.metadata.namespace, name: object.metadata.name });
  const path = objectPath(resource, object.metadata.namespace, object.metadata.name);
  const changed = !!draft && draft.text !== draft.base;
  const live = textOf(object);
  const drifted = !!draft && live !== draft.base;
  useEffect(() => {
    if (!changed) return undefined;
    setLeaveGuard(() => window.confirm('Leave and lose your changes?'));
    return () => setLeaveGuard(undefined);
  }, [changed]);

  const guarded = async (work: () => Promise<void>) => {
    setBusy(true);
    setError(undefined);
    try {
      await work();
    } catch (problem) {
      setError(problem as Error);
    } finally {
      setBusy(false);
    }
  };
  const check = () => guarded(async () => {
    const mine = parseOne(draft!.text);
    const latest = await getObject(path);
    const theirs = textOf(latest);
    if (theirs !== draft!.base) {
      const merged = merge3(draft!.base, draft!.text, theirs);
      setConflict({ base: draft!.base, mine: draft!.text, theirs, merged: merged.text, conflicts: merged.conflicts });
      return;
    }
    const body = { ...mine, metadata: { ...mine.metadata, resourceVersion: latest.metadata.resourceVersion } };
    const dry = await write('PUT', `${path}?dryRun=All&fieldValidation=Strict&fieldManager=${FIELD_MANAGER}`, body);
    setReview({ before: theirs, after: textOf(dry.object), warnings: dry.warnings, body });
  });
  const apply = () => guarded(async () => {
    try {
      const { warnings } = await write('PUT', `${path}?fieldValidation=Strict&fieldManager=${FIELD_MANAGER}`, review!.body);
      toast(`${resource.kind} ${object.metadata.name} is changed.`);
      for (const warning of warnings) toast(warning, 'warn');
      setReview(undefined);
      setDraft(undefined);
    } catch (problem) {
      setReview(undefined);
      if (problem instanceof ApiError && problem.code === 409) return check();
      throw problem;
    }
  });
  const editReason = deleted ? 'It was deleted.' : access.allowed ? undefined : access.reason || 'Asking whether you may';
  const start = () => setDraft({ base: live, text: live });
  const actions = draft
    ? <><Button onClick={() => (!changed || window.confirm('Lose your changes?')) && setDraft(undefined)}>Cancel</Button><Button tone="primary" reason={deleted ? 'It was deleted.' : busy ? 'Under way' : changed ? undefined : 'Nothing is changed yet.'} onClick={() => void check()}>Review changes</Button></>
    : <><Button onClick={() => void navigator.clipboard?.writeText(toYaml(full))}>Copy</Button><Button onClick={() => download(`${object.metadata.name}.yaml`, toYaml(full))}>Download</Button><Button tone="primary" reason={editReason} onClick={start}>Edit</Button></>;
  return (
    <Section title={draft ? 'Edit' : 'YAML'} actions={actions}>
      <div className="stack">
        {deleted && draft && <Note tone="bad">It was deleted on the server while you edited. Copy what you need; it can’t be applied.</Note>}
        {drifted && !deleted && <Note tone="warn">It has changed on the server since you began. Review shows both sets of changes.</Note>}
        {error && <ErrorNote what="Not applied." error={error} />}
        <Editor key={draft ? 'edit' : 'view'} label={`YAML of ${object.metadata.name}`} value={draft ? draft.text : toYaml(full)} readOnly={!draft} help={help} onChange={(text) => setDraft((old) => old && { ...old, text })} />
        {draft && <p className="faint">Status and what the server writes are left out. Hover over a field, or press Ctrl Space, for help.</p>}
      </div>
      {review && (
        <Dialog title="Apply this change?" size="wide" onClose={() => setReview(undefined)} footer={<><Button onClick={() => setReview(undefined)}>Back</Button><Button tone="primary" reason={busy ? 'Under way' : undefined} onClick={() => void apply()}>Apply</Button></>}>
          <p>The server accepts it (dry run). What would change, defaults included:</p>
          {review.warnings.map((warning) => <Note key={warning} tone="warn">{warning}</Note>)}
          <DiffView before={review.before} after={review.after} label="What would change" />
        </Dialog>
      )}
      {conflict && <ConflictDialog conflict={conflict} onClose={() => setConflict(undefined)} onTake={(text) => { setDraft({ base: conflict.theirs, text }); setConflict(undefined); }} />}
    </Section>
  );
}
