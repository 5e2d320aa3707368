// The YAML editor's place on a page. CodeMirror itself is in editor_view.ts, loaded when an editor is first shown;
// until then, and if it can't be loaded, a plain text area takes its place.
import { useEffect, useRef, useState } from 'react';
import type { EditorHandle, EditorHelp } from './editor_view';

interface Props {
  label: string;
  value: string;
  onChange?(value: string): void;
  readOnly?: boolean;
  help?: EditorHelp;
}

export function Editor({ label, value, onChange, readOnly, help }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const handle = useRef<EditorHandle | undefined>(undefined);
  const latest = useRef({ value, onChange, help });
  const [plain, setPlain] = useState(false);
  useEffect(() => {
    latest.current = { value, onChange, help };
    handle.current?.setValue(value);
  });
  useEffect(() => {
    let alive = true;
    import('./editor_view').then(
      ({ createEditor }) => {
        if (!alive || !box.current) return;
        handle.current = createEditor(box.current, {
          label, value: latest.current.value, readOnly: !!readOnly,
          onChange: (text) => latest.current.onChange?.(text),
          help: { describe: (path) => latest.current.help?.describe(path), complete: (path) => latest.current.help?.complete(path) ?? [] },
        });
      },
      () => alive && setPlain(true),
    );
    return () => {
      alive = false;
      handle.current?.destroy();
      handle.current = undefined;
    };
  }, [label, readOnly]);
  if (plain) return <textarea className="editor-plain" aria-label={label} value={value} readOnly={readOnly} onChange={(event) => onChange?.(event.target.value)} />;
  return <div className="editor" ref={box} />;
}
