// A pod's volumes: where each comes from and which container sees it where. The API has no way to list the files of a
// volume, so none are shown; contents of ConfigMaps and Secrets are on their own pages.
import { objectLink } from '../links';
import { Empty, Link, Note, Section, Tag } from '../ui/basics';
import type { PanelProps } from './table';

interface Mount {
  name: string;
  mountPath: string;
  readOnly?: boolean;
  subPath?: string;
}
type Volume = { name: string } & Record<string, Record<string, unknown>>;

const LINKS: Record<string, [resource: string, field: string]> = { configMap: ['configmaps', 'name'], secret: ['secrets', 'secretName'], persistentVolumeClaim: ['persistentvolumeclaims', 'claimName'] };

function Origin({ volume, namespace }: { volume: Volume; namespace: string }) {
  const type = Object.keys(volume).find((key) => key !== 'name') ?? 'emptyDir';
  const [resource, field] = LINKS[type] ?? [];
  const name = field && String(volume[type]?.[field] ?? '');
  return <><Tag>{type}</Tag> {resource && name ? <Link to={objectLink('', resource, namespace, name)}>{name}</Link> : null}</>;
}

export default function VolumesPanel({ object }: PanelProps) {
  const volumes = (object.spec?.volumes ?? []) as Volume[];
  const containers = [...(object.spec?.initContainers ?? []), ...(object.spec?.containers ?? [])] as { name: string; volumeMounts?: Mount[] }[];
  if (!volumes.length) return <Empty title="This pod has no volumes." />;
  return (
    <Section title="Volumes">
      <div className="scroll-x"><table className="plain"><thead><tr><th>Volume</th><th>From</th><th>Mounted</th></tr></thead>
        <tbody>{volumes.map((volume) => <tr key={volume.name}><td>{volume.name}</td><td><Origin volume={volume} namespace={object.metadata.namespace!} /></td><td><ul>{containers.flatMap((container) => (container.volumeMounts ?? []).filter((mount) => mount.name === volume.name).map((mount) => <li key={`${container.name}${mount.mountPath}`}>{container.name}: <code>{mount.mountPath}</code> {mount.subPath && <>from <code>{mount.subPath}</code> </>}{mount.readOnly && <Tag>read only</Tag>}</li>))}</ul></td></tr>)}</tbody></table></div>
      <Note>The API does not list the files of a volume, so they can’t be browsed here.</Note>
    </Section>
  );
}
