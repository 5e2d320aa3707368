// The files of a container's volumes. The API lists none, so they are read as kubectl cp reads them: the node's tool `tar`
// archives the volume, within a limit, and unpacks what is uploaded. Nothing is written but by the button.
import { useRef, useState } from 'react';
import { runCommand } from '../api/exec';
import { useAccess } from '../api/rights';
import { download } from '../lib/download';
import { formatBytes } from '../lib/quantity';
import { childrenOf, readTar, writeTar, type TarEntry } from '../lib/tar';
import { Button, Empty, ErrorNote, Note, Section } from '../ui/basics';
import { toast } from '../ui/toasts';

/** The largest volume that is listed and file that is uploaded; kubectl cp has no limit. */
const MOST = 16 * 2 ** 20;
/** The longest text that is shown on the page. */
const MOST_SHOWN = 256 * 1024;

export interface Place {
  container: string;
  path: string;
  readOnly?: boolean;
}
interface Listing {
  place: Place;
  archive: Uint8Array<ArrayBuffer>;
  entries: TarEntry[];
  directory: string;
}

const label = ({ container, path }: Place) => `${container}: ${path}`;
const inArchive = (path: string) => path.replace(/^\/+|\/+$/g, '');
const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1);

/** The text of a file, or why it is not shown. */
function textOf(bytes: Uint8Array): { text: string } | { reason: string } {
  if (bytes.length > MOST_SHOWN) return { reason: `It is more than ${formatBytes(MOST_SHOWN)}: download it.` };
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) };
  } catch {
    return { reason: 'It is no text: download it.' };
  }
}

export function Files({ namespace, pod, places }: { namespace: string; pod: string; places: Place[] }) {
  const [at, setAt] = useState(0);
  const [listing, setListing] = useState<Listing>();
  const [shown, setShown] = useState<TarEntry>();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error>();
  const picker = useRef<HTMLInputElement>(null);
  const access = useAccess({ verb: 'create', group: '', resource: 'pods', subresource: 'exec', namespace, name: pod });
  const place = places[at];
  if (!place) return <Empty title="No container of this pod has a volume mounted." />;
  const refused = busy ? 'Under way' : access.allowed ? undefined : access.reason || 'Asking whether you may';
  const attempt = async (work: () => Promise<void>) => {
    setBusy(true);
    setError(undefined);
    await work().catch((problem: unknown) => setError(problem as Error));
    setBusy(false);
  };
  const list = async (directory: string) => {
    const archive = await runCommand({ namespace, pod, container: place.container, command: ['tar', '-c', '-f', '-', place.path] }, { most: MOST });
    setListing({ place, archive, entries: readTar(archive), directory });
    setShown(undefined);
  };
  const upload = async (file: File | undefined) => {
    if (!file || !listing) return;
    if (file.size > MOST) throw new Error(`${file.name} is more than ${formatBytes(MOST)}: use kubectl cp.`);
    const input = writeTar(file.name, new Uint8Array(await file.arrayBuffer()), Math.floor(file.lastModified / 1000));
    await runCommand({ namespace, pod, container: listing.place.container, command: ['tar', '-x', '-f', '-', '-C', `/${listing.directory}`] }, { input, most: MOST });
    toast(`${file.name} is in /${listing.directory}.`);
    await list(listing.directory);
  };
  const bytesOf = (entry: TarEntry) => listing!.archive.slice(entry.start, entry.start + entry.size);
  const open = (entry: TarEntry) => (entry.directory ? (setListing({ ...listing!, directory: entry.path }), setShown(undefined)) : setShown(entry));
  const content = shown && listing ? textOf(bytesOf(shown)) : undefined;
  const top = listing && inArchive(listing.place.path);
  const choose = (index: number) => {
    setAt(index);
    setListing(undefined);
    setShown(undefined);
    setError(undefined);
  };
  return (
    <Section title="Files">
      <div className="stack">
        <div className="inline">
          <select aria-label="Volume to browse" value={at} onChange={(event) => choose(Number(event.target.value))}>{places.map((entry, index) => <option key={label(entry)} value={index}>{label(entry)}</option>)}</select>
          <Button tone="primary" reason={refused} onClick={() => void attempt(() => list(listing?.directory ?? inArchive(place.path)))}>{listing ? 'Read again' : 'List files'}</Button>
          {listing && <Button reason={place.readOnly ? 'This volume is mounted read only.' : refused} onClick={() => picker.current?.click()}>Upload a file</Button>}
          {listing && <input ref={picker} type="file" hidden aria-label="File to upload" onChange={(event) => { const file = event.target.files?.[0]; event.target.value = ''; void attempt(() => upload(file)); }} />}
        </div>
        {error && <ErrorNote error={error} />}
        {listing && (
          <>
            <div className="inline"><code>/{listing.directory}</code>{listing.directory !== top && <Button onClick={() => { setListing({ ...listing, directory: listing.directory.slice(0, listing.directory.lastIndexOf('/')) }); setShown(undefined); }}>Up</Button>}</div>
            <div className="scroll-x" tabIndex={0}><table className="plain"><thead><tr><th>Name</th><th>Size</th><th>Actions</th></tr></thead>
              <tbody>{childrenOf(listing.entries, listing.directory).map(({ name, entry }) => <tr key={name}><td><Button tone="quiet" onClick={() => open(entry)}>{entry.directory ? `${name}/` : name}</Button></td><td>{entry.directory ? '' : formatBytes(entry.size)}</td><td>{!entry.directory && <Button aria-label={`Download ${name}`} onClick={() => download(name, new Blob([bytesOf(entry)]))}>Download</Button>}</td></tr>)}</tbody></table></div>
          </>
        )}
        {shown && content && <div><h3>{nameOf(shown.path)}</h3>{'text' in content ? <pre className="code-block pre" tabIndex={0} aria-label={`Content of ${nameOf(shown.path)}`}>{content.text}</pre> : <Note>{content.reason}</Note>}</div>}
        <p className="faint">The whole volume is read, up to {formatBytes(MOST)}; for more there is <code>kubectl cp</code>. Links are not listed, and an upload replaces a file of the same name.</p>
      </div>
    </Section>
  );
}
