// Create: from YAML, or by a form that writes YAML. Every way ends in the same review and apply.
import { useState } from 'react';
import { CreateApp } from '../create/app';
import { CreateConfig } from '../create/config';
import { CreateExpose } from '../create/expose';
import { CreateWasm } from '../create/wasm';
import { CreateYaml } from '../create/yaml';
import { navigate, useLocation } from '../router';
import { useNamespace } from '../namespace';
import { Tabs } from '../ui/tabs';
import type { PageProps } from './table';

const FORMS = [['yaml', 'YAML'], ['app', 'App from an image'], ['wasm', 'Push a .wasm file'], ['expose', 'Expose'], ['config', 'Configuration']] as const;

export interface FormProps {
  namespace: string;
  /** Goes on to the review with this text. */
  onYaml(text: string): void;
}

export default function CreatePage({ params }: PageProps) {
  const form = params['form'] ?? 'yaml';
  const { query } = useLocation();
  const namespace = useNamespace() || 'default';
  const [text, setText] = useState('');
  const onYaml = (next: string) => {
    setText(next);
    navigate('/create/yaml');
  };
  const props = { namespace, onYaml };
  return (
    <div className="page">
      <div className="page-head"><h1>Create</h1><span className="faint">in namespace {namespace}, where an object names none</span></div>
      <Tabs label="Ways to create" current={form} tabs={FORMS.map(([id, title]) => ({ id, title, to: `/create/${id}` }))} />
      {form === 'app' ? <CreateApp {...props} image={query.get('image') ?? ''} name={query.get('name') ?? ''} /> : form === 'wasm' ? <CreateWasm {...props} /> : form === 'expose' ? <CreateExpose {...props} /> : form === 'config' ? <CreateConfig {...props} /> : <CreateYaml namespace={namespace} text={text} onText={setText} kind={query.get('kind') ?? undefined} />}
    </div>
  );
}
